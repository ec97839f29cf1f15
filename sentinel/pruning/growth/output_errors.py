"""What a model's sites should output and do not: one forward and backward pass over a few windows.

With L = KL(dense ‖ model) in nats per token and g_t = ∂(Σ L)/∂y_t at the output y of a site, a slice of weight W that
reads the inputs x_t changes L by tr(WᵀG) + ½ (κ / out) tr(W C Wᵀ) to second order: G = E[g xᵀ], C = E[x xᵀ], and
κ = E‖g‖² of sampled labels, the curvature that selection takes too (`sensitivity`). The best slice is
W = −(out / κ) G C⁻¹, the least-squares fit to the error −(out / κ) g; it gains ½ (out / κ) tr(G C⁻¹ Gᵀ). Both are too
large where the curvature has favourite directions, as it has in trained models; gains are good for their order.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from sentinel.models.families.base import Site, Unit
from sentinel.models.hooks import inputs_of, outputs_of
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.sensitivity import differentiable, output_sensitivity
from sentinel.utils.metrics import kl_divergences

# λ as a share of the mean diagonal of C.
RIDGE = 1e-2
TINY = torch.finfo(torch.float32).tiny

# Unit → layer → sets of groups, by their index in the layer, whose slices are sought together; all of one size.
Sets = Mapping[Unit, Mapping[int, Sequence[Sequence[int]]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputError:
    """What one site lacks, as some sets of its groups see it; `width` columns to a set.

    Attributes:
        gradient: G, (sets, out, width), float64.
        moment: C, (sets, width, width), float64.
        step: out / κ.
    """

    gradient: torch.Tensor
    moment: torch.Tensor
    step: float

    def gains(self) -> list[float]:
        """What each set's best output slices would gain; nats per token, were the curvature the same all around."""
        return (0.5 * self.step * (self.gradient * self._solved()).sum((1, 2))).tolist()

    def slices(self) -> torch.Tensor:
        """Each set's best output slices, (sets, out, width)."""
        return -self.step * self._solved()

    def _solved(self) -> torch.Tensor:
        """G (C + λI)⁻¹."""
        C, width = self.moment, self.moment.shape[-1]
        ridge = RIDGE * C.diagonal(dim1=1, dim2=2).mean(1) + TINY
        regularised = C + ridge[:, None, None] * torch.eye(width, dtype=C.dtype, device=C.device)
        return torch.cholesky_solve(self.gradient.mT, torch.linalg.cholesky(regularised)).mT


def output_errors(calibration: Calibration, dense: PreTrainedModel, sets: Sets) -> dict[tuple[Unit, int], OutputError]:
    """What is lacking at every unit and layer that has sets.

    Args:
        calibration: The model and its windows.
        dense: The model that it should predict like.
        sets: Which groups; at least one set per layer that is named.
    """
    kappas = zip(calibration.sites(), output_sensitivity(calibration).tolist(), strict=True)
    wanted = [(site, kappa) for site, kappa in kappas if sets.get(site.unit, {}).get(site.layer)]
    columns = [_columns(site, sets[site.unit][site.layer]) for site, _ in wanted]
    sums: list[tuple[torch.Tensor, torch.Tensor]] = []
    for batch in calibration.batches():
        found = _inputs_and_gradients(calibration.model, dense, [site for site, _ in wanted], batch)
        parts = [_products(x, g, chosen) for (x, g), chosen in zip(found, columns, strict=True)]
        sums = [(a + b, c + d) for (a, c), (b, d) in zip(sums, parts, strict=True)] if sums else parts
    tokens = calibration.windows.numel()
    return {
        (site.unit, site.layer): OutputError(gradient=G / tokens, moment=C / tokens, step=G.shape[1] / max(kappa, TINY))
        for (site, kappa), (G, C) in zip(wanted, sums, strict=True)
    }


def _columns(site: Site, sets: Sequence[Sequence[int]]) -> torch.Tensor:
    """(sets, width): the inputs of the output projection that belong to each set."""
    within = torch.arange(site.group_width)
    return (torch.tensor(sets)[..., None] * site.group_width + within).flatten(1)


def _products(x: torch.Tensor, g: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ g xᵀ and Σ x xᵀ per set, float64, from x (tokens, in) and g (tokens, out)."""
    chosen = x[:, columns.to(x.device)]
    gradient = torch.einsum("no,nsi->soi", g, chosen).double()
    return gradient, torch.einsum("nsi,nsj->sij", chosen, chosen).double()


def _inputs_and_gradients(
    model: PreTrainedModel, dense: PreTrainedModel, sites: Sequence[Site], batch: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per site x, (tokens, in), and g, (tokens, out), in float32."""
    with torch.no_grad():
        dense_logits = dense(input_ids=batch, use_cache=False).logits
    inputs: list[list[torch.Tensor]] = [[] for _ in sites]
    with torch.enable_grad(), differentiable(model), ExitStack() as stack:
        outputs = [stack.enter_context(outputs_of(site.output)) for site in sites]
        for site, seen in zip(sites, inputs, strict=True):
            stack.enter_context(inputs_of(site.output, partial(_keep, seen)))
        logits = model(input_ids=batch, use_cache=False).logits
        divergence = kl_divergences(dense_logits, logits).sum()
        gradients = torch.autograd.grad(divergence, [seen.pop() for seen in outputs])
    return [(_rows(seen.pop()), _rows(gradient)) for seen, gradient in zip(inputs, gradients, strict=True)]


def _keep(seen: list[torch.Tensor], x: torch.Tensor) -> None:
    seen.append(x.detach())


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(0, -2).float()
