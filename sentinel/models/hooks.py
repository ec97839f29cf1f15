"""Looks at what goes into modules and what comes out of them, and leaves nothing behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def outputs_of(module: nn.Module, *, copied: bool = False) -> Iterator[list[torch.Tensor]]:
    """Collect every output of `module` while the context lasts, one per call.

    Args:
        module: Any module.
        copied: Whether to collect copies, as some classes add to an output in place. Gradients need the output itself.
    """
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output.clone() if copied else output))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def inputs_of(module: nn.Module, see: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Show `see` every input of `module` while the context lasts."""
    handle = module.register_forward_pre_hook(lambda _, arguments: see(arguments[0]))
    try:
        yield
    finally:
        handle.remove()
