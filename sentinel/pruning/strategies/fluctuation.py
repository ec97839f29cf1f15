"""The output error that is left when a group is replaced by its mean."""

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance
from sentinel.pruning.sensitivity import in_nats
from sentinel.pruning.strategies.closed_form import SiteStatistics, from_statistics, slice_energies


def rank(calibration: Calibration) -> list[Ranking]:
    """tr(W_h Σ_hh W_hᵀ), Σ = C − μμᵀ (after FLAP, An et al. 2023), scaled by the sensitivity κ of the site."""
    return in_nats(from_statistics(calibration, _rank), calibration)


def _rank(site: SiteStatistics) -> Ranking:
    return by_importance(slice_energies(site.weight, site.covariance, site.num_groups))
