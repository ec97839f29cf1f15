"""A run in formulas, for the learning curve alone; what it says of real models is nothing.

The excess loss e is a share of the dense loss. A cut from p to q of the way adds to it
`depth` (q² − p²) (1 + `coarse` (q − p)): what is cut later costs more, a large cut more than several small.
s healing steps bring it nearer to what cannot be healed, `depth` q² / 10; the rest shrinks by exp(−s / `patience`).
"""

from dataclasses import dataclass
from math import exp

import numpy as np

from sentinel.controller.measurements import Measurements, Outcome
from sentinel.pruning.schedule import progress_at

DENSE_LOSS = 2.0
STEPS_PER_CYCLE = 20


@dataclass(frozen=True, kw_only=True)
class Toy:
    depth: float = 0.5
    coarse: float = 0.0
    patience: float = 60.0
    cycles: int = 4
    noise: float = 0.002

    def run(self, controller, *, seed, after_cycle=lambda controller: controller):
        """The excess at the end, and the decisions; `after_cycle` may put another controller in the place of this."""
        noise = np.random.default_rng(seed)
        excess, progress, left = 0.0, 0.0, STEPS_PER_CYCLE * self.cycles
        cut_excess, slope, decisions = None, None, []
        for cycle in range(1, self.cycles + 1):
            now = self.measurements(cycle, progress, left, excess, cut_excess, slope)
            decision = controller.decide(now)
            decisions.append(decision)
            step = decision.progress - progress
            added = self.depth * (decision.progress**2 - progress**2) * (1 + self.coarse * step)
            cut_excess = excess + added + noise.normal(scale=self.noise)
            floor = self.depth * decision.progress**2 / 10
            left_over = (cut_excess - floor) * exp(-decision.steps / self.patience)
            excess, progress, left = floor + left_over, decision.progress, left - decision.steps
            slope = DENSE_LOSS * left_over / self.patience
            controller.learn(Outcome(cycle=cycle, loss=loss(excess), steps=decision.steps))
            controller = after_cycle(controller)
        return excess, decisions

    def measurements(self, cycle, progress, left, excess, cut_excess, slope):
        return Measurements(
            cycle=cycle,
            cycles=self.cycles,
            progress=progress,
            steps_left=left,
            steps_per_cycle=STEPS_PER_CYCLE,
            planned=progress_at(cycle, cycles=self.cycles, schedule="linear"),
            dense_loss=DENSE_LOSS,
            loss=loss(excess),
            cut_loss=None if cut_excess is None else loss(cut_excess),
            healing_slope=slope,
            utilisation={},
            entropy={},
            removed={},
        )


def loss(excess):
    return DENSE_LOSS * (1 + excess)
