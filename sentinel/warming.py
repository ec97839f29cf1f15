"""The warm-up: trains the loaded model before the first cut, until its loss is stable. That is the dense model then.

Its weights are written once into the run's folder and linked into every state, so that a resumed run has them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sentinel.events import CheckpointSaved, Phase, Reporter
from sentinel.heal_report import HealingObserver
from sentinel.heal_spec import Heal, WarmUp
from sentinel.inputs import Inputs
from sentinel.models.evaluation import mean_loss
from sentinel.models.loaders.weights import load_weights
from sentinel.outputs import write_unfinished
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner, steps_per_cycle
from sentinel.pruning.fine_tuning.keeping import PeriodicKeeper
from sentinel.pruning.pruning_module import PruningModule
from sentinel.result import WarmUpRecord
from sentinel.spec import Spec
from sentinel.utils.checkpoints.cycle_state import (
    CHECKPOINT_FOLDER,
    DENSE_FOLDER,
    METRICS_FILE,
    STATE_FOLDER,
    TRAINING_FOLDER,
    CycleState,
    Source,
    link_folder,
    save_state,
    spec_digest,
    state_folder,
)
from sentinel.utils.progress_tracker import ProgressTracker

SERIES = "warm_up_loss"


def warm_up(
    spec: Spec,
    inputs: Inputs,
    *,
    commits: Mapping[Source, str],
    output: Path,
    reporter: Reporter,
    tracker: ProgressTracker,
    resume: Path | None,
    state: CycleState | None,
    save_interval_s: float,
) -> WarmUpRecord | None:
    """Do what `heal.before` asks for, or take up what an earlier attempt has done of it.

    Args:
        spec: What is asked for.
        inputs: The loaded model, which is trained in place, and the text.
        commits: What was read of the hub, to be kept in every state.
        output: The run's folder; the dense model and states go under it.
        reporter: Hears of every state.
        tracker: Hears of everything else.
        resume: The folder that `state` was read from.
        state: Where an earlier attempt was left; None begins.
        save_interval_s: As of `run`.

    Returns:
        What came of it; None where the spec does not ask for it.

    Raises:
        SentinelError: As `FineTuner.fine_tune` says; or the state is damaged.
    """
    heal = spec.heal
    if heal is None or heal.before is None:
        return None
    if resume and state and state.warm_up:
        load_weights(resume / DENSE_FOLDER, inputs.dense)
        link_folder(resume / DENSE_FOLDER, output / DENSE_FOLDER)
        return state.warm_up
    warming = _Warming(
        spec, heal, heal.before, inputs, commits=commits, output=output, reporter=reporter, tracker=tracker
    )
    if resume and state:
        load_weights(resume / CHECKPOINT_FOLDER, inputs.dense)
        tracker.add_timings(state.timings_s)
        tracker.message(f"Resumed at step {state.warming_step} of the warm-up.")
    return warming.run(resume=resume, save_interval_s=save_interval_s)


class _Warming:
    """One run's warm-up, with the arguments of `warm_up`."""

    def __init__(
        self,
        spec: Spec,
        heal: Heal,
        before: WarmUp,
        inputs: Inputs,
        *,
        commits: Mapping[Source, str],
        output: Path,
        reporter: Reporter,
        tracker: ProgressTracker,
    ) -> None:
        self._spec, self._heal, self._before, self._inputs = spec, heal, before, inputs
        self._commits, self._output, self._reporter, self._tracker = commits, output, reporter, tracker

    def run(self, *, resume: Path | None, save_interval_s: float) -> WarmUpRecord:
        """Train until the loss is stable, and keep what came of it; the weights of `resume` are loaded already."""
        exchange = self._spec.grow.steps if self._spec.grow else 0
        self._tracker.plan(
            cycles=self._spec.prune.cycles,
            steps_per_cycle=steps_per_cycle(self._heal, self._inputs.training) + exchange,
            steps_before=self._before.steps,
        )
        with self._tracker.phase(Phase.WARMING_UP):
            loaded_loss = self._loss("loaded_loss")
            steps = self._train(resume=resume, save_interval_s=save_interval_s)
            reason = reason_of(self._losses(), self._before, steps=steps)
            loss = self._loss("dense_loss")
        self._tracker.message(
            f"Warm-up: held-out loss {loaded_loss:.4f} as loaded, {loss:.4f} now. {reason}",
            level="warning" if loss > loaded_loss else "info",
        )
        record = WarmUpRecord(steps=steps, loaded_loss=loaded_loss, loss=loss, reason=reason)
        write_unfinished(self._inputs, self._module(), self._output / DENSE_FOLDER)
        self._save(steps, record=record)
        return record

    def _loss(self, name: str) -> float:
        """Of the model as it is, or as it was when an earlier attempt recorded it."""
        if not self._tracker.series[name]:
            self._tracker.metric(name, mean_loss(self._inputs.dense, self._inputs.evaluation))
        return self._tracker.series[name][-1].value

    def _train(self, *, resume: Path | None, save_interval_s: float) -> int:
        """Steps that it took."""
        healed = FineTuner(heal=self._heal.warming(self._before), dense=self._inputs.dense).fine_tune(
            self._inputs.dense,
            self._inputs.training,
            seed=self._spec.seed,
            observer=HealingObserver(self._tracker, cycle=0, steps_before=0, series=SERIES),
            keeper=PeriodicKeeper(self._keep, interval_s=save_interval_s),
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
        folder, dense, module = state_folder(self._output / STATE_FOLDER, 0, step=step), None, self._module()
        write_checkpoint: Callable[[Path], None] = partial(write_unfinished, self._inputs, module)
        if record:
            dense = self._output / DENSE_FOLDER
            write_checkpoint = partial(link_folder, dense)
        state = CycleState(
            spec_sha256=spec_digest(self._spec),
            cycle=0,
            kept=module.kept,
            records=[],
            warming_step=None if record else step,
            warm_up=record,
            commits=dict(self._commits),
            timings_s=dict(self._tracker.timings_s),
        )
        save_state(
            folder,
            state,
            self._output / METRICS_FILE,
            write_checkpoint=write_checkpoint,
            write_training=write_training,
            dense=dense,
        )
        self._reporter.emit(CheckpointSaved(cycle=0, step=step, directory=str(folder)))


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
