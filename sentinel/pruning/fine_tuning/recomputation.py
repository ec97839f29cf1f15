"""Gradient checkpointing of any family: a layer keeps its input and computes the rest again on the way back.

transformers' own switch works only in training mode, in which dropout would be on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Checkpoint these layers while the context lasts."""
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the instance's; the class has its own
