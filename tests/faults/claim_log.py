"""When each claim began and was committed, which the database does not tell, by a clock that all processes share.

FAULT_CLAIMS names the file that workers write and `read` reads.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from api.store import leases
from api.store.leases import Claim


@dataclass(frozen=True, kw_only=True)
class NotedClaim:
    """One successful claim; times are of the monotonic clock, in seconds."""

    job_id: str
    worker: int
    began: float
    committed: float


def install() -> None:
    """Note every claim of this process that is committed."""
    claim_next = leases.claim_next
    path = Path(os.environ["FAULT_CLAIMS"])

    def noted(session: Session, **options: Any) -> Claim | None:
        began = time.monotonic()
        claim = claim_next(session, **options)
        if claim is not None:
            event.listen(session, "after_commit", lambda _: _note(path, claim, began), once=True)
        return claim

    leases.claim_next = noted


def read(path: Path) -> Sequence[NotedClaim]:
    """All of them, as they began."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return sorted((NotedClaim(**json.loads(line)) for line in lines), key=lambda claim: claim.began)


def _note(path: Path, claim: Claim, began: float) -> None:
    noted = NotedClaim(job_id=claim.job_id, worker=os.getpid(), began=began, committed=time.monotonic())
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(asdict(noted)) + "\n")
