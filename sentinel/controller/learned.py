"""Decides by what earlier runs came to, and learns from every run that reaches its end.

A linear bandit on returns: what is to come from a cycle on is predicted for each action, and the action is drawn by
Thompson sampling. docs/controller.md has the formulas.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt

from sentinel.controller.actions import Action, available, carry_out
from sentinel.controller.experience import SIZE, Experience, features
from sentinel.controller.measurements import Measurements, Outcome
from sentinel.controller.memory import Memory
from sentinel.controller.posterior import Vector
from sentinel.controller.saved import save_experience
from sentinel.controller.situation import assess
from sentinel.result import DecisionRecord

# What all of a run's healing steps cost, as a share of the dense model's loss; those that win less are not worth it.
BUDGET_PRICE = 0.01


class Step(BaseModel):
    """One cycle of the run at hand.

    Attributes:
        features: Of the situation and the action.
        loss: Held-out, before it, in nats per token.
        healing_steps: How many it took; 0 as long as it lasts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: list[FiniteFloat] = Field(min_length=SIZE, max_length=SIZE)
    loss: FiniteFloat
    healing_steps: NonNegativeInt = 0


class Run(BaseModel):
    """The run at hand, from which nothing has been learnt yet.

    Attributes:
        cycles: Of the whole run.
        budget: Healing steps of the whole run.
        dense_loss: Held-out, in nats per token.
        steps: Its cycles so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cycles: PositiveInt
    budget: NonNegativeInt
    dense_loss: PositiveFloat
    steps: list[Step] = []

    def rewards(self, loss: float) -> list[float]:
        """Of each cycle, what followed until the run ended with this held-out loss.

        That is the fall of the loss less the price of the steps, as shares of the dense model's loss.
        """
        taken = [step.healing_steps for step in self.steps]
        return [
            (step.loss - loss) / self.dense_loss - BUDGET_PRICE * sum(taken[i:]) / max(self.budget, 1)
            for i, step in enumerate(self.steps)
        ]


class LearnedState(BaseModel):
    """All that a learned controller has to remember; `run` is None between runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experience: Experience
    memory: Memory = Memory()
    run: Run | None = None


class LearnedController:
    """Chooses an action by experience, and gains some with every run."""

    def __init__(self, state: LearnedState, *, seed: int, grow: float, explore: bool) -> None:
        """Go on from a state.

        Args:
            state: What is known and remembered.
            seed: Of what is drawn.
            grow: As of `available`.
            explore: Draw what to believe; otherwise believe what is likeliest.
        """
        self._state, self._seed, self._grow, self._explore = state, seed, grow, explore

    def decide(self, now: Measurements) -> DecisionRecord:
        """As `Controller` says. A first cycle forgets a run that did not reach its end."""
        known = self._state.experience
        memory = self._state.memory.at(now)
        situation = assess(now, memory)
        choices = {action: features(now, situation, action) for action in available(now, grow=self._grow)}
        action, expected, reason = self._choose(choices)
        grounds = situation.numbers() | expected
        decision = carry_out(action, now, memory, grow=self._grow, grounds=grounds, reason=reason)
        self._state = LearnedState(
            experience=known.model_copy(update={"decisions": known.decisions + 1}),
            memory=memory.having(decision, now),
            run=self._run_with(Step(features=choices[action].tolist(), loss=now.loss), now),
        )
        return decision

    def learn(self, outcome: Outcome) -> None:
        """Note what the cycle took; after the run's last, learn from each of its cycles."""
        known, run = self._state.experience, self._state.run
        if run is None or outcome.cycle != len(run.steps):
            raise ValueError(f"Cycle {outcome.cycle} was not decided here.")
        taken = run.steps[-1].model_copy(update={"healing_steps": outcome.steps})
        run = run.model_copy(update={"steps": [*run.steps[:-1], taken]})
        if outcome.cycle < run.cycles:
            self._state = self._state.model_copy(update={"run": run})
            return
        posterior = known.posterior
        for step, reward in zip(run.steps, run.rewards(outcome.loss), strict=True):
            posterior = posterior.seen(np.array(step.features), reward)
        self._state = LearnedState(experience=known.model_copy(update={"posterior": posterior}))

    def state(self) -> dict[str, Any]:
        """As `Controller` says."""
        return self._state.model_dump(mode="json")

    def save(self, folder: Path) -> None:
        """As `Controller` says."""
        save_experience(self._state.experience, folder)

    def _choose(self, choices: dict[Action, Vector]) -> tuple[Action, dict[str, float], str]:
        """The action, what each is expected to bring, and why."""
        known = self._state.experience
        likeliest = known.posterior.mean()
        believed = likeliest
        if self._explore:
            believed = known.posterior.draw(np.random.default_rng([self._seed, known.decisions]))
        action = max(choices, key=lambda choice: float(believed @ choices[choice]))
        expected = {f"expected_{choice}": float(likeliest @ x) for choice, x in choices.items()}
        how = "a draw from" if self._explore else "the mean of"
        reason = (
            f"Of {', '.join(choices)}, `{action}` promises most: {believed @ choices[action]:+.4f} of the dense "
            f"model's loss until the end, by {how} what {known.posterior.samples} cycle(s) have taught."
        )
        return action, expected, reason

    def _run_with(self, step: Step, now: Measurements) -> Run:
        earlier = self._state.run.steps if self._state.run and now.cycle > 1 else []
        return Run(
            cycles=now.cycles,
            budget=now.steps_per_cycle * now.cycles,
            dense_loss=now.dense_loss,
            steps=[*earlier, step],
        )
