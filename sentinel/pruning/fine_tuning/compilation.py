"""What a healing that compiles needs around it: causal attention without masks, errors that say what to do, an end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import masking_utils

from sentinel.errors import CompilationFailed
from sentinel.models.document_isolation import is_isolating

# Told by their modules' names: to import them takes a second that healing without them need not spend.
_COMPILERS = ("torch._dynamo.", "torch._inductor.")
# What transformers asks before it leaves a causal mask to the attention kernel. While a model is compiled it would
# always make one: torch before 2.14 says that it is exported, and its positions might be those of several documents.
_ONE_SEQUENCE: dict[str, Callable[..., Any]] = {
    "is_torchdynamo_exporting": lambda: False,
    "find_packed_sequence_indices": lambda _positions: None,
}


@contextmanager
def compiling(model: nn.Module) -> Iterator[None]:
    """For as long as the model's forward pass is run compiled.

    torch keeps eight variants of a function at most, and runs what would be the ninth as if nothing had been said of
    compiling. Every cycle cuts another shape, so what was compiled before is forgotten.

    Where documents need not be kept apart, a window is one sequence, read from its start. So its attention is compiled
    as causal and gets no mask: kernels without one skip half of the work, and on a GPU only they are the quick ones.

    Raises:
        CompilationFailed: torch could not compile, say for want of a C++ compiler.
    """
    try:
        with nullcontext() if is_isolating(model) else _without_masks():
            yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(_COMPILERS):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise CompilationFailed(f"torch.compile could not compile the model: {reason}") from error
    finally:
        torch.compiler.reset()


@contextmanager
def _without_masks() -> Iterator[None]:
    before = {name: getattr(masking_utils, name) for name in _ONE_SEQUENCE}
    vars(masking_utils).update(_ONE_SEQUENCE)
    try:
        yield
    finally:
        vars(masking_utils).update(before)
