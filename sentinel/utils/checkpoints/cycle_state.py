"""The state after a cycle or in a healing, on disk: a checkpoint that any reader can load, JSON. Never pickle.

A state folder appears complete or not at all: it is written beside its place, then renamed. What a checkpoint is made
of is the writer's business.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sentinel.errors import CheckpointInvalid
from sentinel.result import CycleRecord, WarmUpRecord
from sentinel.spec import Spec

STATE_FOLDER = "state"
STATE_FILE = "state.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINT_FOLDER = "checkpoint"
DENSE_FOLDER = "dense"
TRAINING_FOLDER = "training"


class Healing(BaseModel):
    """A cycle that has been cut and is being healed.

    Attributes:
        record: What is known of the cycle; its loss is that before healing.
        step: Healing steps done.
        done: Whether that was the last of them: the cycle goes on with its growth, and nothing is left of the training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: CycleRecord
    step: int
    done: bool = False


class CycleState(BaseModel):
    """What a run needs, beside the weights, to go on after a cycle or in the healing of the next.

    Attributes:
        spec_sha256: Digest of the spec; a state resumes only its own experiment.
        cycle: The last finished cycle, counted from 1.
        kept: Unit → per layer, the dense model's groups that are left.
        records: One per finished cycle.
        warming_step: Steps of the warm-up that are done, if it is not over; what it needs lies in the training folder.
        warm_up: What the warm-up came to; the model that it made lies in the dense folder. None without one.
        commits: Of the hub, by the section of the spec: the run goes on with the same, wherever a branch has moved.
        healing: The cycle after them, if it is being healed; what that needs lies in the training folder.
        controller: What the controller has to remember; None without one.
        timings_s: Seconds per phase so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec_sha256: str
    cycle: int
    kept: dict[Literal["attention", "mlp"], list[list[int]]]
    records: list[CycleRecord]
    warming_step: int | None = None
    warm_up: WarmUpRecord | None = None
    commits: dict[str, str] = {}
    healing: Healing | None = None
    controller: dict[str, Any] | None = None
    timings_s: dict[str, float]


def spec_digest(spec: Spec) -> str:
    """sha256 of the parts of a spec that decide the outcome; name and limits may change between attempts."""
    return hashlib.sha256(spec.model_dump_json(exclude={"name", "limits"}).encode()).hexdigest()


def save_state(
    folder: Path,
    state: CycleState,
    metrics: Path,
    *,
    write_checkpoint: Callable[[Path], object],
    write_training: Callable[[Path], object] | None = None,
    dense: Path | None = None,
) -> None:
    """Write a state folder: checkpoint, metrics so far, state. Replaces an older one of the same name.

    Args:
        folder: Where to.
        state: What the checkpoint does not say.
        metrics: File of the metrics so far.
        write_checkpoint: Writes the model into the folder that it is given, which does not exist yet.
        write_training: Writes what a healing needs to go on into the folder that it is given.
        dense: The dense model's checkpoint, where the run has made it; is linked, as all states need the same.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_checkpoint(partial / CHECKPOINT_FOLDER)
    if write_training:
        (partial / TRAINING_FOLDER).mkdir()
        write_training(partial / TRAINING_FOLDER)
    if dense:
        link_folder(dense, partial / DENSE_FOLDER)
    shutil.copyfile(metrics, partial / METRICS_FILE)
    (partial / STATE_FILE).write_text(state.model_dump_json(), encoding="utf-8")
    for path in (*partial.rglob("*"), partial):
        _fsync(path)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    _fsync(folder.parent)


def load_state(folder: Path, spec: Spec) -> CycleState:
    """Read a state.

    Raises:
        CheckpointInvalid: It is unreadable, or belongs to another spec.
    """
    try:
        state = CycleState.model_validate_json((folder / STATE_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointInvalid(f"Cannot read the saved state in {folder.name}: {error}") from error
    if state.spec_sha256 != spec_digest(spec):
        raise CheckpointInvalid(f"The saved state in {folder.name} belongs to another spec.")
    return state


def state_folder(root: Path, cycle: int, *, step: int | None = None) -> Path:
    """Where the state after `cycle` lies, or the one `step` steps of training later; names sort as they come."""
    return root / (f"cycle-{cycle:04d}" if step is None else f"cycle-{cycle:04d}-step-{step:08d}")


def drop_superseded(newest: Path) -> None:
    """Remove the states in a warm-up or healing that are older than `newest`, which lies beside them."""
    for folder in newest.parent.glob("cycle-*-step-*"):
        if folder.name < newest.name:
            shutil.rmtree(folder)


def link_folder(source: Path, target: Path) -> None:
    """Make `target` a folder of the same files, in the place of what is there. Nobody may write into either's files.

    They are hard links, which take no space; copies where the file system has none.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
