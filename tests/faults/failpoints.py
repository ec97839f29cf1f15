"""What can be made to go wrong inside a process of the service, as the environment variable FAULT_PLAN says.

Further variables name files: FAULT_LOG, in which the process notes what its plan did to it; FAULT_PENDING, which it
removes then; FAULT_CLOCK, which says how far its wall clock is off. The service knows nothing of all this: a test that
starts a process through `faulty` puts these points into it.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import obstore
from obstore.exceptions import GenericError
from sqlalchemy import event
from sqlalchemy.orm import Session

from api.store import jobs, leases, reconciliation
from api.store.storage import LOG_NAME

WORKER_POINTS = (
    "claim_next", "heartbeat", "record_events", "record_checkpoint", "succeed", "fail", "finish_cancel", "release",
)  # fmt: skip
API_POINTS = ("accept_job", "request_cancel", "request_pause", "request_resume", "reconcile")
Side = Literal["before", "after"]
StorageFault = Literal["error", "full", "damage"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes wrong in one process.

    Attributes:
        crash_at: The store's operation at whose commit the process kills itself; None never.
        side: Whether that is before or after the commit.
        nth: At which of these commits, from 1.
        puts: Number of a write to the storage, from 1 → how it goes wrong.
    """

    crash_at: str | None = None
    side: Side = "before"
    nth: int = 1
    puts: Mapping[int, StorageFault] = field(default_factory=dict)

    def as_text(self) -> str:
        """For `parse`."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """What `as_text` gave."""
        document = json.loads(text)
        return cls(**document | {"puts": {int(number): fault for number, fault in document["puts"].items()}})


def install() -> None:
    """Put the plan into this process. Call it before anything of the service is imported."""
    plan = Plan.parse(os.environ["FAULT_PLAN"])
    if plan.crash_at is not None:
        (module,) = (each for each in (jobs, leases, reconciliation) if plan.crash_at in vars(each))
        setattr(module, plan.crash_at, _named(plan.crash_at, getattr(module, plan.crash_at)))
        _crash_at_commit(plan)
    if plan.puts:
        _fail_puts(plan.puts)
    _let_clock_step()


def _named(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """The operation, marking its session so that the commit knows what it commits."""

    def marked(session: Session, *arguments: Any, **options: Any) -> Any:
        session.info["point"] = name
        return operation(session, *arguments, **options)

    return marked


def _crash_at_commit(plan: Plan) -> None:
    seen: Counter[Side] = Counter()

    def crash(session: Session, side: Side) -> None:
        if session.info.get("point") != plan.crash_at or session.in_nested_transaction():
            return
        seen[side] += 1
        if (side, seen[side]) == (plan.side, plan.nth):
            _note(f"crash {side} {plan.crash_at}")
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Session, "before_commit", lambda session: crash(session, "before"))
    event.listen(Session, "after_commit", lambda session: crash(session, "after"))


def _fail_puts(faults: Mapping[int, StorageFault]) -> None:
    put = obstore.put
    calls = Counter[str]()

    def faulty(store: Any, key: str, content: Any, **options: Any) -> Any:
        if key.endswith(f"/{LOG_NAME}"):  # how often a log is copied is a matter of time, and nothing depends on it
            return put(store, key, content, **options)
        calls["put"] += 1
        fault = faults.get(calls["put"])
        if fault is not None:
            _note(f"storage {fault}")
        if fault == "error":
            raise GenericError("Generic S3 error: 503 Slow Down")
        if fault == "full":
            # What a full disk was seen to give.
            raise GenericError("Generic LocalFileSystem error: No space left on device (os error 28)")
        result = put(store, key, content, **options)
        if fault == "damage":
            (Path(str(store.prefix)) / key).write_bytes(b"damaged")
        return result

    obstore.put = faulty


def _let_clock_step() -> None:
    """`time.time` as the file says it; the monotonic clock stays right, as it does when somebody sets the time."""
    real, clock = time.time, Path(os.environ["FAULT_CLOCK"])

    def stepped() -> float:
        return real() + float(clock.read_text() or 0)

    time.time = stepped


def _note(what: str) -> None:
    Path(os.environ["FAULT_PENDING"]).unlink(missing_ok=True)
    with Path(os.environ["FAULT_LOG"]).open("a", encoding="utf-8") as log:
        log.write(what + "\n")
