"""The people of a schedule: they submit, cancel, pause, resume and retry over HTTP, and insist until they are answered.

They also play what else touches the queue from outside: wake-ups that get lost or doubled.
"""

import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import httpx
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from api import dispatch
from api.store.database import Database, db_now
from api.store.models import Job
from api.store.states import LEASED
from tests.faults.cluster import Cluster

After = Literal["nothing", "cancel", "pause", "retry"]
PATIENCE_S = 60.0
ABANDONED_S = 5.0  # in which a request that nobody waits for any more has surely been carried out
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass
class Wish:
    """One job that somebody wants, and what became of the wish.

    Attributes:
        after: What the user does once it is accepted.
        once_running: Whether it is done as soon as the job runs, not `after_s` later.
        job_ids: Every id that an accepting answer named: more than one is a doubled job.
        retry_ids: The same of its retry.
        asked: Steps that were acknowledged.
    """

    name: str
    seed: int
    cycles: int
    steps: int
    priority: int
    after: After
    after_s: float
    grace_s: float
    once_running: bool = False
    job_ids: set[str] = field(default_factory=set)
    retry_ids: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)

    def document(self) -> dict[str, object]:
        """The spec; the cheap runner reads its cycles, steps and seed."""
        prune = {"target": {"sparsity": 0.25}, "cycles": self.cycles}
        heal = {"steps": self.steps}
        return {"name": self.name, "model": "builtin/llama", "prune": prune, "heal": heal, "seed": self.seed}


class Users:
    """A crowd of threads. Close it after `wait`."""

    def __init__(self, cluster: Cluster, database: Database) -> None:
        self._cluster = cluster
        self._database = database
        self._pool = ThreadPoolExecutor(16)
        self._turn = itertools.cycle(cluster.urls)
        self._lock = threading.Lock()
        self._http = httpx.Client(headers={"Authorization": f"Bearer {cluster.api_key}"}, timeout=5)
        self.busy: list[Future[None]] = []
        self.wishes: list[Wish] = []
        self.refused: list[str] = []  # submits that were not accepted, so that they had to be sent again

    def close(self) -> None:
        """Let everybody go."""
        self._pool.shutdown()
        self._http.close()

    def plan(self, **wish: object) -> Wish:
        """A wish that will be submitted."""
        planned = Wish(**wish)
        self.wishes.append(planned)
        return planned

    def submit(self, wish: Wish) -> None:
        """Begin to want a job."""
        self.busy.append(self._pool.submit(self._live, wish))

    def wait(self) -> list[Wish]:
        """All wishes since the last call, once everybody has been answered.

        Raises:
            TimeoutError: Somebody was not answered in time.
        """
        for future in self.busy:
            future.result(PATIENCE_S * 3)
        wishes, self.wishes, self.busy = self.wishes, [], []
        return wishes

    def lose_wakeups(self) -> bool:
        """FLUSHALL; whether Redis was there."""
        try:
            with dispatch._connected(self._cluster.redis_url()) as connection:
                connection.default_channel.client.flushall()
        except (OperationalError, RedisError, OSError):
            return False
        return True

    def ring(self, times: int) -> None:
        """Wake-ups that nobody needs."""
        for _ in range(times):
            dispatch.wake(self._cluster.redis_url())

    def expire_leases(self) -> None:
        """Every lease ends now, as if the database's clock had jumped: all who hold one become zombies."""
        with suppress(SQLAlchemyError), self._database.transaction() as session:
            session.execute(update(Job).where(Job.state.in_(LEASED)).values(lease_expires_at=db_now(-1)))

    def _live(self, wish: Wish) -> None:
        job = self._ask("POST", "/v1/jobs", json=wish.document(), params={"priority": wish.priority}, key=wish.name)
        wish.job_ids.add(job["id"])
        # A lost answer makes people ask again.
        again = self._ask("POST", "/v1/jobs", json=wish.document(), params={"priority": wish.priority}, key=wish.name)
        wish.job_ids.add(again["id"])
        here = f"/v1/jobs/{job['id']}"
        if wish.once_running:
            self._wait(here, {"running", *ENDED})
        else:
            time.sleep(wish.after_s)
        if wish.after in ("cancel", "pause"):
            self._step(wish, here, wish.after)
        if wish.after == "pause":
            time.sleep(wish.after_s)
            self._resume(wish, here)
        if wish.after == "retry":
            self._retry(wish, here)

    def _step(self, wish: Wish, here: str, step: str) -> None:
        params = {} if step == "resume" else {"grace_s": wish.grace_s}
        answer = self._ask("POST", f"{here}/{step}", params=params, accept=(200, 202, 409))
        if "state" in answer:
            wish.asked.add(step)

    def _resume(self, wish: Wish, here: str) -> None:
        """Until nothing that was abandoned, a pause say, can come late any more; the checker judges what is left."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self._step(wish, here, "resume")
            time.sleep(ABANDONED_S)
            if self._ask("GET", here)["state"] not in {"pausing", "paused"}:
                return

    def _retry(self, wish: Wish, here: str) -> None:
        self._wait(here, ENDED)
        for _ in range(2):
            answer = self._ask("POST", f"{here}/retry", key=f"{wish.name}-retry", accept=(201, 409))
            if "state" in answer:
                wish.retry_ids.add(answer["id"])

    def _wait(self, here: str, states: set[str]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._ask("GET", here)["state"] not in states and time.monotonic() < deadline:
            time.sleep(0.1)

    def _ask(
        self, method: str, path: str, *, key: str | None = None, accept: tuple[int, ...] = (200, 201), **options: object
    ) -> dict[str, object]:
        """Ask one API after the other until one answers."""
        headers = {} if key is None else {"Idempotency-Key": key}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self._http.request(method, self._next_url() + path, headers=headers, **options)
            except httpx.TransportError as error:
                refusal = repr(error)
            else:
                if answer.status_code in accept:
                    return answer.json()
                refusal = f"{answer.status_code} {answer.text}"
                if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    raise AssertionError(f"{method} {path}: {refusal}")
            if path == "/v1/jobs":
                self.refused.append(refusal)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path} was not answered in {PATIENCE_S:g} s")
            time.sleep(0.1)

    def _next_url(self) -> str:
        with self._lock:
            return next(self._turn)
