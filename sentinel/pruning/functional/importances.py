"""Importances from what passes tell; the definitions are those of `sentinel.pruning.strategies`, where the sources are.

All are float64 and in nats, so that layers compare: (gates,), the groups of all sites one behind the other.
"""

from collections.abc import Sequence
from math import ceil

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from sentinel.pruning.functional import passes
from sentinel.pruning.functional.architecture import Architecture, Params, Site

Numbers = NDArray[np.float64]

# As `strategies.ablation` and `sensitivity` have them, which load torch.
_ABLATION_WINDOWS = 8
_SENSITIVITY_WINDOWS = 8
_SENSITIVITY_SHARE = 16


def taylor(model: Architecture, params: Params, windows: Array) -> Numbers:
    """E_window |∂loss/∂m_h|."""
    return np.abs(_float64(passes.loss_slopes(model, params, windows))).mean(0)


def fisher(model: Architecture, params: Params, windows: Array, labels: Array) -> Numbers:
    """What each group adds to ½ 1_Sᵀ F 1_S when the groups of its site go greedily, F_hk = E[z_h z_k]."""
    rows = _float64(passes.likelihood_slopes(model, params, windows, labels)) / windows.size**0.5
    return np.concatenate([added_damage(rows[:, site.gates]) for site in model.sites(params)])


def added_damage(rows: Numbers) -> Numbers:
    """What each group adds to ½‖Z 1_S‖² at its place in the greedy order, (groups,), for Z of shape (rows, groups)."""
    added = np.empty(rows.shape[1])
    alone, together = np.square(rows).sum(0) / 2, np.zeros(len(rows))
    for _ in range(rows.shape[1]):
        costs = alone + together @ rows
        group = int(costs.argmin())
        added[group] = costs[group]
        alone[group] = np.inf
        together += rows[:, group]
    return added


def energy(model: Architecture, params: Params, windows: Array, labels: Array) -> Numbers:
    """½ κ / H · tr(W_h C_hh W_hᵀ): the output error of zeroing a group, scaled by what the model minds of it."""
    few = min(_SENSITIVITY_WINDOWS, ceil(len(windows) / _SENSITIVITY_SHARE))
    kappas = passes.output_sensitivities(model, params, windows[:few], labels[:few])
    of_gates = np.repeat(_float64(kappas), [site.num_groups for site in model.sites(params)])
    return of_gates / 2 / model.hidden_size * _float64(passes.output_energies(model, params, windows))


def ablation(model: Architecture, params: Params, windows: Array, sites: Sequence[Site]) -> Numbers:
    """KL(dense ‖ model without h) on the first windows, for the groups of some sites; nan for all others."""
    gates = np.array([gate for site in sites for gate in range(site.gates.start, site.gates.stop)], dtype=int)
    importance = np.full(len(passes.open_gates(model, params)), np.nan)
    masks = 1 - jax.nn.one_hot(gates, len(importance))
    importance[gates] = _float64(passes.losses_of_masks(model, params, masks, windows[:_ABLATION_WINDOWS]).kl)
    return importance


def _float64(values: Array) -> Numbers:
    return np.asarray(values, dtype=np.float64)
