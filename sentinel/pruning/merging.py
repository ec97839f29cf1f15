"""Finds groups that do what another does, so that one can go and the other take its part. Cuts nothing."""

from dataclasses import dataclass

import torch

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.compensation import Cut
from sentinel.pruning.strategies.closed_form import SiteStatistics, from_statistics
from sentinel.pruning.trial import as_cut


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A group that another of its site can stand in for.

    Attributes:
        group: Which goes: of the two the one that puts out less energy.
        partner: Which stays.
        cosine: Of their outputs, −1 to 1.
    """

    group: int
    partner: int
    cosine: float


def twins(calibration: Calibration, threshold: float) -> list[list[Twin]]:
    """Groups per site whose output is, but for a factor, nearly that of another group, the nearest first.

    cos_hk = E⟨W_h x_h, W_k x_k⟩ / √(E‖W_h x_h‖² E‖W_k x_k‖²) over the calibration windows. Outputs are mean-centred
    where the projection has a bias and not where it has none, as the repair is: a bias takes over what is constant. The
    sign does not matter, as a refit turns it. Who is a partner stays, so that every group that goes has one left.

    Args:
        calibration: The model, its windows, and the units that are looked at.
        threshold: Least |cos|, above 0, at most 1.

    Raises:
        ValueError: The threshold lies outside.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"A cosine of {threshold} cannot be asked for; name one above 0 and at most 1.")
    return from_statistics(calibration, lambda site: _twins(site, threshold))


def redundant(calibration: Calibration, threshold: float) -> Cut:
    """The groups of `twins` that go, for `PruningModule.cut` with `compensation="least_squares"`."""
    found = twins(calibration, threshold)
    return as_cut(calibration.sites(), [sorted(twin.group for twin in site) for site in found])


def _twins(site: SiteStatistics, threshold: float) -> list[Twin]:
    products = _output_products(site)
    energies = products.diagonal()
    norms = energies.clamp_min(0).sqrt()
    cosines = products / (norms[:, None] * norms).clamp_min(torch.finfo(products.dtype).tiny)
    found: list[Twin] = []
    going: set[int] = set()
    staying: set[int] = set()
    # Rounding may take the cosine of two equal outputs past 1, or not quite to it.
    pairs = (cosines.abs().triu(diagonal=1) >= threshold * (1 - 1e-9)).nonzero().tolist()
    for h, k in sorted(pairs, key=lambda pair: -float(cosines[pair[0], pair[1]].abs())):
        group, partner = (h, k) if energies[h] < energies[k] else (k, h)
        if group in staying or {group, partner} & going:
            continue
        going.add(group)
        staying.add(partner)
        found.append(Twin(group=group, partner=partner, cosine=float(cosines[h, k].clamp(-1, 1))))
    return found


def _output_products(site: SiteStatistics) -> torch.Tensor:
    """E⟨W_h x_h, W_k x_k⟩ = tr(W_h C_hk W_kᵀ), (groups, groups), on the CPU."""
    moment = site.covariance if site.has_bias else site.second
    products = (site.weight.T @ site.weight) * moment
    return products.unflatten(1, (site.num_groups, -1)).unflatten(0, (site.num_groups, -1)).sum((1, 3)).cpu()
