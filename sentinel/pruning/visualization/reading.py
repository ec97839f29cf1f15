"""A run as its output folder tells it."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from sentinel.errors import Fault, SentinelError
from sentinel.manifest import MANIFEST_FILE, Manifest, Run, numbers
from sentinel.result import RESULT_FILE, Result
from sentinel.spec import Spec
from sentinel.utils.checkpoints.cycle_state import CHECKPOINT_FOLDER
from sentinel.utils.series import Series, read_series

RUN_AGAIN = "Run it again, or read it with the version of Sentinel that made it."


class RunUnreadable(SentinelError):
    """A folder does not hold a run that has ended well."""

    code = "run_unreadable"
    fault = Fault.USER
    next_step = "Name the --output folder of a `sentinel run` that has ended."


class RecordedRun(NamedTuple):
    """What pictures are drawn from."""

    run: Run
    series: Series


def read_run(folder: Path) -> RecordedRun:
    """Result, series, and from the checkpoint's manifest the spec and the groups.

    Raises:
        RunUnreadable: One of them is not there, or is something else.
        MetricsUnreadable: The same of the metrics.
    """
    if not (folder / RESULT_FILE).is_file():
        raise RunUnreadable(f"There is no run in {folder} that has ended.")
    try:
        result = Result.model_validate_json((folder / RESULT_FILE).read_bytes())
        manifest = Manifest.model_validate_json((folder / CHECKPOINT_FOLDER / MANIFEST_FILE).read_bytes())
        spec = Spec.model_validate(manifest.spec)
    except (OSError, ValidationError) as error:
        raise RunUnreadable(
            f"What the run in {folder} has left is damaged, or of another version: {error}", next_step=RUN_AGAIN
        ) from error
    kept = {unit: [numbers(text) for text in layers] for unit, layers in manifest.kept.items()}
    return RecordedRun(
        Run(spec=spec, result=result, kept=kept, dense_counts=manifest.dense_counts), read_series(folder)
    )
