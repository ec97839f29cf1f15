"""One gate per group: a multiplier on the input of a site's output projection.

Scoring, masking and pruning all go through this one mechanism. It is a forward pre-hook, so it works
under every attention implementation and knows no model. It does not decide what to close.
"""

from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sentinel.models.families.base import Site


class Gates:
    """The gates of a model, in force between enter and exit.

    Attributes:
        sites: The gated sites, in the order given.
        values: Per site, the gates (num_groups,) or, one row per sample, (batch, num_groups);
            1 = open, 0 = closed; dtype and device of the projection's weight.
    """

    def __init__(self, sites: Sequence[Site], *, requires_grad: bool = False) -> None:
        self.sites = tuple(sites)
        self.values = [_open_gates(site, requires_grad=requires_grad) for site in self.sites]
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        if self._handles:
            raise RuntimeError("These gates are in force already.")
        for index, site in enumerate(self.sites):
            self._handles.append(site.output.register_forward_pre_hook(partial(self._multiply, index)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def set(self, index: int, values: Tensor) -> None:
        """Replace the gates of the site at `index` by `values`, (num_groups,) or (batch, num_groups).

        Raises:
            ValueError: The last dimension is not the site's number of groups.
        """
        site, old = self.sites[index], self.values[index]
        if values.ndim not in (1, 2) or values.shape[-1] != site.num_groups:
            raise ValueError(f"Layer {site.layer} has {site.num_groups} groups; gates came as {tuple(values.shape)}.")
        self.values[index] = values.detach().clone().to(old).requires_grad_(old.requires_grad)

    @torch.no_grad()
    def close(self, index: int, group: int) -> None:
        """Close one gate of the site at `index`, for all samples."""
        self.values[index][..., group] = 0

    def _multiply(self, index: int, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = inputs
        gates = self.values[index]
        if gates.ndim == 2:
            # OPT hands its MLP the tokens of all samples in one row.
            gates = gates.repeat_interleave(len(x) // len(gates), 0) if x.ndim == 2 else gates[:, None, :]
        gated = x.unflatten(-1, (gates.shape[-1], self.sites[index].group_width)) * gates[..., None]
        return (gated.flatten(-2), *rest)


def _open_gates(site: Site, *, requires_grad: bool) -> Tensor:
    weight = site.output.weight
    assert isinstance(weight, Tensor)  # noqa: S101 - tells the type checker what every projection has
    return torch.ones(site.num_groups, dtype=weight.dtype, device=weight.device, requires_grad=requires_grad)
