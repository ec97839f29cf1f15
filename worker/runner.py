"""The child process of one attempt: `python -m worker.runner`, or a fork of a process that has warmed up.

Imports torch, says it is ready, reads one assignment as a JSON line, runs the experiment and
writes its events as JSON lines. It has no database, no storage and no secrets, and no network unless the spec
needs it; it ends when its worker ends. What becomes of the events and files is the supervisor's business.
"""

import gc
import logging
import os
import queue
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict

from sentinel.errors import OutOfMemory, SentinelError
from sentinel.events import Event, Failed
from sentinel.model_limits import ModelLimits
from sentinel.spec import Spec, parse_spec
from sentinel.utils import logs, sandbox

logger = logging.getLogger("worker.runner")  # as a process it is __main__

READY = "ready"
MAX_FILE_DESCRIPTORS = 4096


class Assignment(BaseModel):
    """What one attempt has to do; results go to the working directory.

    Attributes:
        spec: The job's spec as it was accepted.
        resume: Cycle folder of an earlier attempt, if any.
        fetched: Where that lies which the spec names by ids.
        allowed_roots: Folders under which the spec may name files.
        limits: How large the model may be.
        hub_token: To read what is not public on the hub; none for a spec that fetches nothing.
        memory_bytes: What the device has for this attempt.
        log_fields: What the log lines of the attempt carry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: dict[str, Any]
    resume: Path | None
    fetched: dict[str, Path]
    allowed_roots: list[Path]
    limits: ModelLimits
    hub_token: str | None
    memory_bytes: int
    log_fields: dict[str, str | int | float]


class LineReporter:
    """Writes each event as one JSON line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def emit(self, event: Event) -> None:
        """Write and flush, so that the parent sees it at once."""
        self._stream.write(event.model_dump_json() + "\n")
        self._stream.flush()


def main() -> None:
    """Give up what no experiment needs, warm up, run one assignment, report how it ended."""
    _limit_resources()
    _try(sandbox.give_up_privileges)
    stream = _take_stdout()
    assignments = _watch_stdin()
    warm_up()
    stream.write(READY + "\n")
    stream.flush()
    _run(Assignment.model_validate_json(assignments.get()), LineReporter(stream))


def warm_up() -> None:
    """The slow imports.

    They leave much and no garbage: looking for it took a third of their time, and in a forked runner would write to the
    memory that it shares.
    """
    gc.disable()
    from transformers.utils.logging import disable_progress_bar

    import sentinel.experiment  # noqa: F401

    gc.freeze()
    gc.enable()
    disable_progress_bar()
    logs.adopt("transformers", "datasets", "huggingface_hub")


def _run(assignment: Assignment, reporter: LineReporter) -> None:
    from torch import OutOfMemoryError

    from sentinel.experiment import run

    logs.bind(**assignment.log_fields)
    logger.info("the experiment begins")
    try:
        spec = parse_spec(assignment.spec)
        _open_or_cut_network(spec, assignment.hub_token)
        run(
            spec,
            output=Path(),  # the result names its files relative to where they are published
            reporter=reporter,
            resume=assignment.resume,
            allowed_roots=assignment.allowed_roots,
            fetched=assignment.fetched,
            limits=assignment.limits,
            memory_bytes=assignment.memory_bytes,
        )
        logger.info("the experiment has ended")
    except SentinelError as error:
        logger.exception("the experiment failed")
        reporter.emit(Failed(error=error.as_dict()))
    except (MemoryError, OutOfMemoryError) as error:
        logger.exception("out of memory")
        reporter.emit(Failed(error=OutOfMemory(f"Out of memory: {error}").as_dict()))


def _open_or_cut_network(spec: Spec, hub_token: str | None) -> None:
    """Before anything that the spec names is read."""
    if not spec.needs_network:
        _try(sandbox.cut_network)
    elif hub_token is not None:
        os.environ["HF_TOKEN"] = hub_token


def _try(give_up: Callable[[], None]) -> None:
    try:
        give_up()
    except sandbox.Unenforced as reason:
        logger.warning("the sandbox lacks `%s`: %s", give_up.__name__, reason)


def _take_stdout() -> TextIO:
    """Keep the real stdout for events; whatever libraries print goes to the log."""
    private = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(private, "w", encoding="utf-8")


def _watch_stdin() -> queue.SimpleQueue[str]:
    """Read the assignment in a thread that ends this process when the parent's end of the pipe closes."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def watch() -> None:
        line = sys.stdin.readline()
        if line:
            lines.put(line)
            sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    return lines


def _limit_resources() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = MAX_FILE_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_FILE_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    logs.configure(logs.LogFormat(os.environ.get("SENTINEL_LOG_FORMAT") or "text"))
    main()
