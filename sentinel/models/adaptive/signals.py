"""What every attention group of a model does, measured in one pass over a few windows. Decides nothing."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sentinel.models.adaptive.adaptive_model import AdaptiveModel
from sentinel.models.adaptive.gates import Gates
from sentinel.models.attention_maps import attention_maps, group_entropies
from sentinel.models.families.base import Family, Site, output_weight
from sentinel.models.hooks import inputs_of, outputs_of
from sentinel.utils.metrics import next_token_losses

SignalName = Literal["importance", "entropy", "utilisation", "gradient_norm", "gate"]
# Layer → one value per attention group of the model as it is now; layers without groups are absent.
PerGroup = Mapping[int, tuple[float, ...]]
# Windows that are looked at: signals describe, they rank nothing.
WINDOWS = 16


@dataclass(frozen=True, kw_only=True)
class Signals:
    """One measurement. x_h is the group's slice of the output projection's input, gated; W_h that of its weight.

    Attributes:
        importance: Mean over windows of |∂loss/∂m_h|, loss in nats per token, m_h a factor on the group as it is gated.
        entropy: Mean entropy of its attention rows, in nats.
        utilisation: E‖W_h x_h‖² / Σ_k E‖W_k x_k‖²: its share of the energy that the layer's groups put out, each alone;
            0 where all are closed.
        gradient_norm: ‖∂loss/∂W_h‖, the norm of the mean gradient: how hard training would pull at what it puts out.
        gate: Its gate; 1 where it has none.
    """

    importance: PerGroup
    entropy: PerGroup
    utilisation: PerGroup
    gradient_norm: PerGroup
    gate: PerGroup

    def by_name(self) -> dict[SignalName, dict[int, dict[int, float]]]:
        """Name → layer → group → value, as a cycle's record keeps them."""
        series: dict[SignalName, PerGroup] = {
            "importance": self.importance,
            "entropy": self.entropy,
            "utilisation": self.utilisation,
            "gradient_norm": self.gradient_norm,
            "gate": self.gate,
        }
        return {name: {layer: dict(enumerate(row)) for layer, row in rows.items()} for name, rows in series.items()}


def measure_signals(model: PreTrainedModel, family: Family, windows: Tensor) -> Signals:
    """Measure every attention group of a model.

    One forward and backward pass of one window at a time, with attention maps; gates and outputs are differentiated,
    no weights. Gates of an `AdaptiveModel` that are in force count as part of the model.

    Args:
        model: The model, left as it is.
        family: Where its groups live.
        windows: Token ids (windows, sequence_length); the first 16 are used. At least 2 tokens each.
    """
    windows = windows[:WINDOWS]
    sites = [site for site in family.sites(model, ["attention"]) if site.num_groups]
    if not sites:
        return Signals(importance={}, entropy={}, utilisation={}, gradient_norm={}, gate={})
    sums = [_Sums(site) for site in sites]
    layers = [site.layer for site in sites]
    with torch.enable_grad(), ExitStack() as stack:
        gates = stack.enter_context(Gates(sites, requires_grad=True))
        maps = stack.enter_context(attention_maps(model, family, layers))
        inputs: list[list[Tensor]] = [[] for _ in sites]
        for site, seen in zip(sites, inputs, strict=True):
            stack.enter_context(inputs_of(site.output, seen.append))
        outputs = [stack.enter_context(outputs_of(site.output)) for site in sites]
        for window in windows.split(1):
            loss = next_token_losses(model(input_ids=window, use_cache=False).logits, window).mean()
            gradients = torch.autograd.grad(loss, [*gates.values, *(seen.pop() for seen in outputs)])
            for index, of_site in enumerate(sums):
                _, attention_BHTT, *_ = maps[index].pop()
                of_site.add(
                    attention=attention_BHTT.detach(),
                    inputs=inputs[index].pop().detach(),
                    by_gate=gradients[index],
                    by_output=gradients[len(sites) + index],
                )
    count = len(windows)
    return Signals(
        importance={s.site.layer: _row(s.importance / count) for s in sums},
        entropy={s.site.layer: _row(s.entropy / count) for s in sums},
        utilisation={s.site.layer: _row(s.energy / s.energy.sum().clamp_min(1e-300)) for s in sums},
        gradient_norm={s.site.layer: _row(s.gradient_norms() / count) for s in sums},
        gate={s.site.layer: (1.0,) * s.site.num_groups for s in sums},
    )


def signals_of(adaptive: AdaptiveModel, windows: Tensor) -> Signals:
    """The same of a model with its gates in force.

    Raises:
        RuntimeError: They are not.
    """
    if not adaptive.attached:
        raise RuntimeError("These gates are not in force: attach them first, or measure the model itself.")
    signals = measure_signals(adaptive.model, adaptive.family, windows)
    gated = {
        site.layer: _row(values)
        for site, values in zip(adaptive.sites, adaptive.values(), strict=True)
        if site.unit == "attention"
    }
    return replace(signals, gate={**signals.gate, **gated})


class _Sums:
    """What is added up over windows for one site, in float64 but for the gradient of the weight, which is large."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.importance = torch.zeros(site.num_groups, dtype=torch.float64)
        self.entropy = torch.zeros_like(self.importance)
        self.energy = torch.zeros_like(self.importance)
        weight_OGi = self._per_group(output_weight(site).detach().double())
        self._gram_Gij = torch.einsum("ogi,ogj->gij", weight_OGi, weight_OGi)
        self._gradient = torch.zeros_like(output_weight(site).detach(), dtype=torch.float32)

    def add(self, *, attention: Tensor, inputs: Tensor, by_gate: Tensor, by_output: Tensor) -> None:
        self.importance += by_gate.double().abs().cpu()
        self.entropy += group_entropies(attention, self.site.num_groups)
        x_TGi = self._per_group(inputs.flatten(0, -2).double())
        second_Gij = torch.einsum("tgi,tgj->gij", x_TGi, x_TGi)
        self.energy += (self._gram_Gij * second_Gij).sum((1, 2)).cpu()
        self._gradient += by_output.flatten(0, -2).float().T @ inputs.flatten(0, -2).float()

    def gradient_norms(self) -> Tensor:
        return self._per_group(self._gradient.double()).square().sum((0, 2)).sqrt().cpu()

    def _per_group(self, columns: Tensor) -> Tensor:
        return columns.unflatten(-1, (self.site.num_groups, self.site.group_width))


def _row(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())
