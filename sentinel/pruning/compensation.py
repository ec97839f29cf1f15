"""Cuts one layer and repairs its output projections behind the prefix that is already cut.

Two targets: a projection's own uncut output (`least_squares`), or whatever brings the residual stream back to where
the uncut model has it (`residual_least_squares`), for which projections that lose nothing are refitted too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from sentinel.models.families.base import UNITS, Site, Unit, output_bias, output_weight, set_output
from sentinel.models.hooks import inputs_of, outputs_of
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.calibration import Calibration, LayerwisePass, by_window
from sentinel.pruning.least_squares import SplitSums, refit
from sentinel.result import LayerCompensation

Cut = Mapping[Unit, Mapping[int, Sequence[int]]]


@dataclass(frozen=True, kw_only=True)
class UncutLayer:
    """What the uncut model computes in one layer, batch by batch.

    Attributes:
        hidden: Its input, (windows, tokens, hidden).
        inputs: Input of each unit's first projections, of the same shape; nothing for an attention without heads.
        outputs: Output of each unit's output projection, of the same shape.
        behind: Its output, of the same shape.
    """

    hidden: Sequence[torch.Tensor]
    inputs: Mapping[Unit, Sequence[torch.Tensor]]
    outputs: Mapping[Unit, Sequence[torch.Tensor]]
    behind: Sequence[torch.Tensor]


# How a unit is fitted to the uncut model's residual stream.
Fit = Callable[[Calibration, Site, LayerwisePass, UncutLayer], LayerCompensation]


def cut_layer(calibration: Calibration, layer: int, cut: Cut) -> None:
    """Cut what is to go from one layer and change nothing else."""
    of_layer = {unit: {layer: layers[layer]} for unit, layers in cut.items() if layer in layers}
    apply_removal(calibration.model, calibration.family, of_layer)


def run_uncut(calibration: Calibration, layer: int, uncut: LayerwisePass) -> UncutLayer:
    """Carry `uncut` through a layer that is not cut yet, and remember what it computed."""
    family, model, hidden = calibration.family, calibration.model, uncut.hidden
    sites = {unit: family.site(model, layer, unit) for unit in UNITS}
    inputs: dict[Unit, list[torch.Tensor]] = {unit: [] for unit in UNITS}
    with ExitStack() as stack:
        for unit, seen in inputs.items():
            stack.enter_context(inputs_of(input_projections(calibration, sites[unit])[0], seen.append))
        outputs = {unit: stack.enter_context(outputs_of(site.output, copied=True)) for unit, site in sites.items()}
        uncut.run(layer)
    return UncutLayer(
        hidden=hidden,
        inputs={unit: _by_window(seen, hidden) for unit, seen in inputs.items()},
        outputs={unit: _by_window(seen, hidden) for unit, seen in outputs.items()},
        behind=uncut.hidden,
    )


def _by_window(seen: Sequence[torch.Tensor], hidden: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Nothing where nothing was seen: an attention without heads reads no input."""
    return [by_window(features, states) for features, states in zip(seen, hidden, strict=False)]


def input_projections(calibration: Calibration, site: Site) -> list[nn.Module]:
    """The projections that read the unit's input; norms that groups have slices of are none."""
    parts = calibration.family.parts(calibration.model, site.layer, site.unit)
    return [part.module for part in parts[:-1] if isinstance(part.module, nn.Linear | Conv1D)]


def least_squares(calibration: Calibration, layer: int, cut: Cut, stream: LayerwisePass) -> Iterator[LayerCompensation]:
    """Cut one layer and refit what is cut to its own output: W'_K x_K ≈ W x, x behind the already cut prefix."""
    model, family = calibration.model, calibration.family
    for unit in UNITS:
        if groups := cut.get(unit, {}).get(layer):
            site = family.site(model, layer, unit)
            kept = _kept(site, groups)
            sums = _own_sums(site, kept, stream)
            family.keep_groups(model, layer, unit, kept)
            yield apply_refit(family.site(model, layer, unit), sums)


def repair_stream(
    calibration: Calibration, layer: int, cut: Cut, stream: LayerwisePass, uncut: UncutLayer, *, fit: Fit
) -> Iterator[LayerCompensation]:
    """Cut one layer and fit its units so that the residual stream is the uncut model's.

    With h the uncut model's stream and h' the cut one's before a projection is added, and t the uncut model's output
    of it: W'_K x_K ≈ t + (h − h').
    """
    for unit in UNITS:
        cut_layer(calibration, layer, {unit: cut.get(unit, {})})
        site = calibration.family.site(calibration.model, layer, unit)
        with attention_once(calibration, site, stream):
            yield fit(calibration, site, stream, uncut)


def fit_output(calibration: Calibration, site: Site, stream: LayerwisePass, uncut: UncutLayer) -> LayerCompensation:
    """Refit the output projection alone."""
    sums, _ = lack_of_residual(calibration, site, stream, uncut)
    return apply_refit(site, sums)


@contextmanager
def attention_once(calibration: Calibration, site: Site, stream: LayerwisePass) -> Iterator[None]:
    """While an MLP is repaired its layer's attention stays as it is, and need not be computed again for every look."""
    if site.unit == "attention":
        yield
        return
    with stream.replaying(calibration.family.attention(calibration.model, site.layer)):
        yield


def _own_sums(site: Site, kept: Sequence[int], stream: LayerwisePass) -> SplitSums:
    """What the kept columns lack of the projection's own output, all of it from the second moment of its input."""
    sums = SplitSums()
    stream.run_to(site.layer, site.output, lambda _, inputs: sums.add_inputs(inputs))
    return sums.of_own_output(output_weight(site).detach().double(), _columns(site, kept))


def lack_of_residual(
    calibration: Calibration, site: Site, stream: LayerwisePass, uncut: UncutLayer
) -> tuple[SplitSums, list[torch.Tensor]]:
    """What the projection's output lacks for the residual stream to be the uncut model's; and its targets per batch."""
    family, model = calibration.family, calibration.model
    scale = family.residual_scale(model.config)
    earlier = UNITS[: UNITS.index(site.unit)] if scale is not None else ()
    targets = list(uncut.outputs[site.unit])
    if scale is not None:
        targets = [t + (h - s) / scale for t, h, s in zip(targets, uncut.hidden, stream.hidden, strict=True)]
    with ExitStack() as stack:
        now = {
            u: stack.enter_context(outputs_of(family.site(model, site.layer, u).output, copied=True)) for u in earlier
        }

        def see(index: int) -> None:
            for unit in earlier:
                targets[index] = targets[index] + uncut.outputs[unit][index] - now[unit][index]

        sums = lack_of(site, stream, targets, before=see)
    return sums, targets


def lack_of(
    site: Site,
    stream: LayerwisePass,
    targets: Sequence[torch.Tensor],
    *,
    before: Callable[[int], None] = lambda _: None,
) -> SplitSums:
    """What the projection's output lacks of its targets, with the inputs that it gets now.

    `before` is called with a batch's index when the batch has come to the projection.
    """
    sums = SplitSums()

    @torch.no_grad()
    def see(index: int, inputs: torch.Tensor) -> None:
        before(index)
        sums.add(inputs, lack=targets[index] - site.output(inputs), target=targets[index])

    stream.run_to(site.layer, site.output, see)
    return sums


def apply_refit(site: Site, sums: SplitSums) -> LayerCompensation:
    """Refit the projection by least squares to what it lacks, and say what that mended."""
    bias = output_bias(site)
    repair = refit(sums, has_bias=bias is not None)
    set_output(
        site,
        weight=output_weight(site).double() + repair.weight,
        bias=None if bias is None or repair.bias is None else bias.double() + repair.bias,
    )
    return LayerCompensation(
        unit=site.unit,
        layer=site.layer,
        error_before=repair.error_before,
        error_after=repair.error_after,
        ridge=repair.ridge,
    )


def _kept(site: Site, removed: Sequence[int]) -> list[int]:
    gone = set(removed)
    return [group for group in range(site.num_groups) if group not in gone]


def _columns(site: Site, groups: Sequence[int]) -> torch.Tensor:
    """Boolean (in,): the columns of the output projection that belong to the groups."""
    chosen = torch.zeros(site.num_groups, dtype=torch.bool, device=output_weight(site).device)
    chosen[list(groups)] = True
    return chosen.repeat_interleave(site.group_width)
