"""The warm-up: trains the loaded model before the first cut, until its loss is stable. That is the dense model then.

Its weights are written once into the run's folder and linked into every state, so that a resumed run has them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sentinel.attempt import Attempt
from sentinel.events import Phase
from sentinel.heal_report import HealingObserver
from sentinel.heal_spec import Heal, WarmUp
from sentinel.models.evaluation import mean_loss
from sentinel.models.loaders.weights import load_weights
from sentinel.outputs import write_unfinished
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner, steps_per_cycle
from sentinel.pruning.fine_tuning.keeping import PeriodicKeeper
from sentinel.pruning.pruning_module import PruningModule
from sentinel.result import WarmUpRecord
from sentinel.utils.checkpoints.cycle_state import (
    CHECKPOINT_FOLDER,
    DENSE_FOLDER,
    TRAINING_FOLDER,
    CycleState,
    link_folder,
    spec_digest,
)

SERIES = "warm_up_loss"


def warm_up(attempt: Attempt) -> WarmUpRecord | None:
    """Do what `heal.before` asks for, or take up what an earlier attempt has done of it.

    The loaded model is trained in place.

    Returns:
        What came of it; None where the spec does not ask for it.

    Raises:
        SentinelError: As `FineTuner.fine_tune` says; or the state is damaged.
    """
    heal, resume, state = attempt.spec.heal, attempt.resume, attempt.state
    if heal is None or heal.before is None:
        return None
    if resume and state and state.warm_up:
        load_weights(resume / DENSE_FOLDER, attempt.inputs.dense)
        link_folder(resume / DENSE_FOLDER, attempt.output / DENSE_FOLDER)
        return state.warm_up
    if resume and state:
        load_weights(resume / CHECKPOINT_FOLDER, attempt.inputs.dense)
        attempt.tracker.add_timings(state.timings_s)
        attempt.tracker.message(f"Resumed at step {state.warming_step} of the warm-up.")
    return _Warming(attempt, heal, heal.before).run()


class _Warming:
    """One run's warm-up; the weights that an attempt goes on from are loaded already."""

    def __init__(self, attempt: Attempt, heal: Heal, before: WarmUp) -> None:
        self._attempt, self._heal, self._before = attempt, heal, before
        self._spec, self._inputs, self._tracker = attempt.spec, attempt.inputs, attempt.tracker
        self._dense = attempt.output / DENSE_FOLDER

    def run(self) -> WarmUpRecord:
        """Train until the loss is stable, and keep what came of it."""
        exchange = self._spec.grow.steps if self._spec.grow else 0
        self._tracker.plan(
            cycles=self._spec.prune.cycles,
            steps_per_cycle=steps_per_cycle(self._heal, self._inputs.training) + exchange,
            steps_before=self._before.steps,
        )
        with self._tracker.phase(Phase.WARMING_UP):
            loaded_loss = self._loss("loaded_loss")
            steps = self._train()
            reason = reason_of(self._losses(), self._before, steps=steps)
            loss = self._loss("dense_loss")
        self._tracker.message(
            f"Warm-up: held-out loss {loaded_loss:.4f} as loaded, {loss:.4f} now. {reason}",
            level="warning" if loss > loaded_loss else "info",
        )
        record = WarmUpRecord(steps=steps, loaded_loss=loaded_loss, loss=loss, reason=reason)
        write_unfinished(self._inputs, self._module(), self._dense)
        self._save(steps, record=record)
        return record

    def _loss(self, name: str) -> float:
        """Of the model as it is, or as it was when an earlier attempt recorded it."""
        if not self._tracker.series[name]:
            self._tracker.metric(name, mean_loss(self._inputs.dense, self._inputs.evaluation))
        return self._tracker.series[name][-1].value

    def _train(self) -> int:
        """Steps that it took."""
        resume = self._attempt.resume
        healed = FineTuner(heal=self._heal.warming(self._before), dense=self._inputs.dense).fine_tune(
            self._inputs.dense,
            self._inputs.training,
            seed=self._spec.seed,
            observer=HealingObserver(self._tracker, cycle=0, steps_before=0, series=SERIES),
            keeper=PeriodicKeeper(self._keep, interval_s=self._attempt.save_interval_s),
            resume=resume / TRAINING_FOLDER if resume else None,
            until=lambda: is_stable(self._losses(), self._before),
        )
        return healed.steps

    def _losses(self) -> list[float]:
        """Those that are compared: while the rate rises little is learnt, which says nothing of what can be."""
        points, rise = self._tracker.series[SERIES], self._heal.rise(self._before.steps)
        return [point.value for point in points[-2 * self._before.window :] if point.step > rise]

    def _module(self) -> PruningModule:
        return PruningModule(self._inputs.dense, self._inputs.family)

    def _keep(self, step: int, write_training: Callable[[Path], None]) -> None:
        self._save(step, write_training=write_training)

    def _save(
        self,
        step: int,
        *,
        record: WarmUpRecord | None = None,
        write_training: Callable[[Path], None] | None = None,
    ) -> None:
        """A state in the warm-up; with a record, the one at its end."""
        module = self._module()
        state = CycleState(
            spec_sha256=spec_digest(self._spec),
            cycle=0,
            kept=module.kept,
            records=[],
            warming_step=None if record else step,
            warm_up=record,
            commits=dict(self._attempt.commits),
            timings_s=dict(self._tracker.timings_s),
        )
        self._attempt.keep(
            state,
            step=step,
            write_checkpoint=partial(link_folder, self._dense)
            if record
            else partial(write_unfinished, self._inputs, module),
            write_training=write_training,
        )


def is_stable(losses: Sequence[float], before: WarmUp) -> bool:
    """Whether the last `window` losses are in the mean less than the share `stable_below` under as many before them."""
    found = _means(losses, before.window)
    return found is not None and found[0] - found[1] < before.stable_below * found[0]


def reason_of(losses: Sequence[float], before: WarmUp, *, steps: int) -> str:
    """Why a warm-up ended after so many steps with these losses, in a sentence."""
    found = _means(losses, before.window)
    if found is None:
        return (
            f"The warm-up ended after its {steps} steps; too few were learnt from to tell whether the loss is stable."
        )
    earlier, later = found
    lies = f"{abs(earlier - later) / earlier:.3%} {'below' if later < earlier else 'above'}"
    figures = (
        f"the loss of the last {before.window} steps, {later:.4f} in the mean, lies {lies} the {earlier:.4f} of the "
        f"{before.window} before"
    )
    least = f"{100 * before.stable_below:g}%"
    if is_stable(losses, before):
        return f"The loss is stable after {steps} of {before.steps} steps: {figures}, not {least} below."
    return f"The loss is not stable after all {steps} steps: {figures}, {least} or more."


def _means(losses: Sequence[float], window: int) -> tuple[float, float] | None:
    """Mean of the `window` losses before the last `window`, and of those; None of fewer."""
    if len(losses) < 2 * window:
        return None
    return sum(losses[-2 * window : -window]) / window, sum(losses[-window:]) / window
