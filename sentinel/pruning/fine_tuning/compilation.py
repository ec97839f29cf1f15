"""What a healing that compiles needs around it: errors one can act on, and nothing left of what was compiled."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sentinel.errors import CompilationFailed

# Told by their modules' names: to import them takes a second that healing without them need not spend.
_COMPILERS = ("torch._dynamo.", "torch._inductor.")


@contextmanager
def compiling() -> Iterator[None]:
    """For as long as the forward pass is run compiled.

    torch keeps eight variants of a function at most, and runs what would be the ninth as if nothing had been said of
    compiling. Every cycle cuts another shape, so what was compiled before is forgotten.

    Raises:
        CompilationFailed: torch could not compile, say for want of a C++ compiler.
    """
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(_COMPILERS):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise CompilationFailed(f"torch.compile could not compile the model: {reason}") from error
    finally:
        torch.compiler.reset()
