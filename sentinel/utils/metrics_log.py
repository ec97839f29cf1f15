"""Writes every metric of a run to a JSON-lines file and passes all events on."""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from sentinel.events import Event, MetricRecorded, Reporter


class MetricsLog:
    """A reporter in front of another one; owns the open file."""

    def __init__(self, path: Path, listener: Reporter, *, earlier: Path | None) -> None:
        """Start `path` anew, or with the lines of `earlier`, the metrics of the run that is resumed."""
        if earlier is not None:
            shutil.copyfile(earlier, path)
        self._file = path.open("a" if earlier is not None else "w", encoding="utf-8")
        self._listener = listener

    def emit(self, event: Event) -> None:
        """Write a metric through to the disk's cache; pass everything on."""
        if isinstance(event, MetricRecorded):
            self._file.write(event.model_dump_json(exclude={"type"}) + "\n")
            self._file.flush()
        self._listener.emit(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
