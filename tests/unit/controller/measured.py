"""Measurements by hand: what is not said is that of a run of four cycles whose second is to be decided."""

from sentinel.controller.measurements import Measurements

GROUPS = 4
# As a dense layer: all groups alike.
EVEN = {layer: dict.fromkeys(range(GROUPS), 1 / GROUPS) for layer in range(4)}
DENSE_ENTROPY = {layer: dict.fromkeys(range(GROUPS), 2.0) for layer in range(4)}


def measured(**changes):
    return Measurements(
        **{
            "cycle": 2,
            "cycles": 4,
            "progress": 0.25,
            "steps_left": 60,
            "steps_per_cycle": 20,
            "planned": 0.5,
            "dense_loss": 2.0,
            "loss": 2.2,
            "cut_loss": 2.4,
            "healing_slope": 0.001,
            "utilisation": EVEN,
            "entropy": DENSE_ENTROPY,
            "removed": {},
            **changes,
        }
    )


def first(**changes):
    """The first cycle of such a run."""
    start = {"cycle": 1, "progress": 0.0, "steps_left": 80, "planned": 0.25, "loss": 2.0}
    return measured(**{**start, "cut_loss": None, "healing_slope": None, **changes})


def survivors(layer, shares, *, entropy=2.0):
    """Utilisation, entropy and counts where only one layer has lost groups."""
    groups = dict(enumerate(shares))
    return {
        "utilisation": {**EVEN, layer: groups},
        "entropy": {**DENSE_ENTROPY, layer: dict.fromkeys(groups, entropy)},
        "removed": {layer: GROUPS - len(groups)},
    }
