"""One attempt at a run: what is asked for and loaded, where an earlier attempt was left, and who hears of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sentinel.events import CheckpointSaved, Reporter
from sentinel.inputs import Inputs
from sentinel.spec import Spec
from sentinel.utils.checkpoints.cycle_state import (
    DENSE_FOLDER,
    METRICS_FILE,
    STATE_FOLDER,
    CycleState,
    save_state,
    state_folder,
)
from sentinel.utils.progress_tracker import ProgressTracker


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a run.

    Attributes:
        spec: What is asked for.
        inputs: The dense model and the text.
        commits: What was read of the hub, to be kept in every state.
        output: The run's folder; the dense model and states go under it.
        reporter: Hears of every state.
        tracker: Hears of everything else.
        resume: The folder that `state` was read from.
        state: Where an earlier attempt was left; None begins.
        save_interval_s: Seconds of training after which its state is saved.
    """

    spec: Spec
    inputs: Inputs
    commits: Mapping[str, str]
    output: Path
    reporter: Reporter
    tracker: ProgressTracker
    resume: Path | None
    state: CycleState | None
    save_interval_s: float

    def keep(
        self,
        state: CycleState,
        *,
        step: int | None,
        write_checkpoint: Callable[[Path], None],
        write_training: Callable[[Path], None] | None = None,
    ) -> None:
        """Save a state that a later attempt can go on from, and say so.

        Args:
            state: Where the run is.
            step: Of the training that it is in the middle of; None between two cycles.
            write_checkpoint: Writes the model as it is.
            write_training: Writes what the training needs beside it.
        """
        folder = state_folder(self.output / STATE_FOLDER, state.cycle, step=step)
        save_state(
            folder,
            state,
            self.output / METRICS_FILE,
            write_checkpoint=write_checkpoint,
            write_training=write_training,
            dense=self.output / DENSE_FOLDER if state.warm_up else None,
        )
        self.reporter.emit(CheckpointSaved(cycle=state.cycle, step=step, directory=str(folder)))
