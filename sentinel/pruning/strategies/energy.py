"""The output error of zeroing a group."""

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance
from sentinel.pruning.sensitivity import in_nats
from sentinel.pruning.strategies.closed_form import SiteStatistics, from_statistics, slice_energies


def rank(calibration: Calibration) -> list[Ranking]:
    """tr(W_h C_hh W_hᵀ) = E‖W_h x_h‖², scaled by the sensitivity κ of the site so that layers compare."""
    return in_nats(from_statistics(calibration, _rank), calibration)


def _rank(site: SiteStatistics) -> Ranking:
    return by_importance(slice_energies(site.weight, site.second, site.num_groups))
