"""What a learned controller knows, and what it made of: features of a situation and an action. Decides nothing.

The expected reward is linear in the features: some belong to the situation and are shared by all actions, the others
are an action's own.
"""

from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, model_validator

from sentinel.controller.actions import Action
from sentinel.controller.measurements import Measurements
from sentinel.controller.posterior import Posterior, Vector
from sentinel.controller.situation import Situation

# Raised with every change of what the numbers mean: features, actions, reward.
VERSION = 1
SHARED_FEATURES = ("one", "way_left", "excess", "cycles_left")
OWN_FEATURES = ("one", "debt", "is_last")
ACTIONS = tuple(Action)
SIZE = len(SHARED_FEATURES) + len(ACTIONS) * len(OWN_FEATURES)

# Share of the dense model's loss by which schedules of the same size and budget differed on the built-in models: the
# noise that is expected, and how much better than every other action the plan is taken to be at first.
EXPECTED_DIFFERENCE = 0.02
# In samples: of what the actions share nothing worth mentioning is known, of an action's own as much as a cycle tells.
SHARED_PRECISION, OWN_PRECISION = 1e-3, 1.0


class Experience(BaseModel):
    """All that outlives a run.

    Attributes:
        version: `VERSION` of the code that wrote it.
        posterior: What is believed of the reward, over `SIZE` features.
        decisions: How many were made; each draws from a random stream of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    posterior: Posterior
    decisions: NonNegativeInt

    @classmethod
    def none(cls) -> Self:
        """Before any run."""
        mean, precision = np.zeros(SIZE), np.full(SIZE, OWN_PRECISION)
        mean[_own(Action.PLAN).start] = EXPECTED_DIFFERENCE
        precision[: len(SHARED_FEATURES)] = SHARED_PRECISION
        posterior = Posterior.prior(mean=mean, precision=precision, noise=EXPECTED_DIFFERENCE)
        return cls(version=VERSION, posterior=posterior, decisions=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.posterior.moment) != SIZE:
            raise ValueError(f"The posterior is over {len(self.posterior.moment)} features, not {SIZE}.")
        return self


def features(now: Measurements, at: Situation, action: Action) -> Vector:
    """x, (SIZE,); what is other actions' own is zero.

    Whether the cycle is the last is an action's own matter: the same steps do other things before the last cut than
    behind it.
    """
    x = np.zeros(SIZE)
    x[: len(SHARED_FEATURES)] = (1.0, at.way_left, at.excess, now.cycles_left / now.cycles)
    x[_own(action)] = (1.0, at.debt, float(now.is_last))
    return x


def _own(action: Action) -> slice:
    start = len(SHARED_FEATURES) + ACTIONS.index(action) * len(OWN_FEATURES)
    return slice(start, start + len(OWN_FEATURES))
