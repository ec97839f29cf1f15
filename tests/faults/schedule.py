"""What happens in one schedule, drawn from its seed: who submits and cancels what, and what breaks when.

Every `LONG_EVERY`th schedule is another one: Redis is gone for a minute and comes back empty, and workers break
meanwhile, but nothing that could keep an API from accepting jobs.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.faults.cluster import APIS, WORKERS, Cluster
from tests.faults.failpoints import API_POINTS, WORKER_POINTS, Plan, StorageFault
from tests.faults.network import Cut
from tests.faults.users import After, Users

WINDOW_S = 9.0  # in which everything happens; then the service has peace to finish
SUBMITS_S = 5.0  # in which the jobs come
LONG_EVERY = 25
BACK_S = 0.5  # until Redis is there again
LONG_S = 60.0  # of a long schedule: Redis is away, and jobs come
JOBS = 20
FAULTS = 12
RESTS_S = (0.1, 1.5)
REDIS_AWAY_S = (0.5, 4.0)
FREEZES_S = (1.0, 5.0)  # leases last 2.5
CUTS_S = (1.0, 6.0)
# Every commit of the service, on both sides; each schedule crashes at one, in turn, beside what it draws.
CRASHES = [("worker", p, side) for p in WORKER_POINTS for side in ("before", "after")]
CRASHES += [("api", p, side) for p in API_POINTS for side in ("before", "after")]
# Commits that only some jobs come to: what the first few users of that schedule do, and what goes wrong with a file.
LEADING_USERS = 5
LEADS: dict[str, After] = {
    "finish_cancel": "cancel", "request_cancel": "cancel",
    "release": "pause", "request_pause": "pause", "request_resume": "pause",
}  # fmt: skip
LEADING_PUTS: dict[str, dict[int, StorageFault]] = {"fail": {1: "error"}}


@dataclass(frozen=True, order=True)
class Act:
    """Something to do at a time, in seconds from the schedule's start."""

    at_s: float
    name: str
    do: Callable[[], None] = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Draws the acts of one seed for a cluster and its users."""

    seed: int
    cluster: Cluster
    users: Users

    @property
    def is_long(self) -> bool:
        """Whether Redis is gone for a minute."""
        return self.seed % LONG_EVERY == LONG_EVERY - 1

    def acts(self) -> list[Act]:
        """Everything that happens, in order."""
        rng = random.Random(self.seed)
        return sorted(self._long(rng) if self.is_long else self._short(rng))

    def _short(self, rng: random.Random) -> list[Act]:
        part, point, side = CRASHES[self.seed % len(CRASHES)]
        kinds = [*self._of_workers(), self._kill_api, self._crash_api, self._cut_api]
        kinds += [self._redis_away, self._flush, self._ring]
        kinds += [self._kill_database] if self.cluster.postgres is not None else []
        leading = LEADING_USERS if point in LEADS else 0
        acts = [self._submit(rng, number, SUBMITS_S) for number in range(leading, JOBS)]
        acts += [self._submit_leading(rng, number, LEADS[point]) for number in range(leading)]
        crash = Plan(crash_at=point, side=side, puts=LEADING_PUTS.get(point, {}))
        acts += [Act(0.0, "plan", partial(self.cluster.restart, name, crash, 0.1)) for name in self._all(part)]
        return acts + [rng.choice(kinds)(rng) for _ in range(FAULTS)]

    def _long(self, rng: random.Random) -> list[Act]:
        acts = [self._submit(rng, number, LONG_S) for number in range(JOBS)]
        acts += [self._fault(0.0, "redis away for a minute", lambda: self.cluster.parts["redis"].kill(LONG_S))]
        acts += [self._fault(LONG_S + BACK_S, "lose wake-ups", self.users.lose_wakeups)]
        kinds = self._of_workers()
        return acts + [rng.choice(kinds)(rng) for _ in range(FAULTS)]

    def _of_workers(self) -> list[Callable[[random.Random], Act]]:
        return [
            self._kill_worker, self._kill_child, self._freeze, self._cut_leases, self._step_clock, self._storage,
            self._crash_worker, self._cut_worker,
        ]  # fmt: skip

    def _all(self, kind: str) -> list[str]:
        return [name for name in self.cluster.parts if name.startswith(kind)]

    def _submit(self, rng: random.Random, number: int, within_s: float) -> Act:
        after = rng.choices(("nothing", "cancel", "pause", "retry"), weights=(12, 3, 3, 2))[0]
        job = self.users.plan(
            name=f"{self.seed}-{number}",
            seed=rng.randrange(1000),
            cycles=rng.randint(1, 3),
            steps=rng.randint(3, 8),
            priority=rng.randint(-2, 2),
            after=after,
            after_s=rng.uniform(0.1, 3.0),
            grace_s=rng.choice((0.0, 0.5, 1.0)),
        )
        return Act(rng.uniform(0, within_s), "submit", lambda: self.users.submit(job))

    def _submit_leading(self, rng: random.Random, number: int, after: After) -> Act:
        """A job that is asked to stop while it runs."""
        job = self.users.plan(
            name=f"{self.seed}-{number}",
            seed=rng.randrange(1000),
            cycles=3,
            steps=8,
            priority=3,
            after=after,
            after_s=2.0,
            grace_s=0.0,
            once_running=True,
        )
        return Act(rng.uniform(1.0, SUBMITS_S), "submit", lambda: self.users.submit(job))

    def _fault(self, at: random.Random | float, name: str, do: Callable[[], object]) -> Act:
        def count_and_do() -> None:
            if do() is not False:
                self.cluster.faults[name] += 1

        return Act(self._some_time(at) if isinstance(at, random.Random) else at, name, count_and_do)

    def _some_time(self, rng: random.Random) -> float:
        return rng.uniform(0.3, LONG_S if self.is_long else WINDOW_S)

    def _worker(self, rng: random.Random) -> str:
        return f"worker{rng.randrange(WORKERS)}"

    def _kill_worker(self, rng: random.Random) -> Act:
        name, rest_s = self._worker(rng), rng.uniform(*RESTS_S)
        return self._fault(rng, "kill worker", lambda: self.cluster.parts[name].kill(rest_s))

    def _kill_api(self, rng: random.Random) -> Act:
        name, rest_s = f"api{rng.randrange(APIS)}", rng.uniform(*RESTS_S)
        return self._fault(rng, "kill api", lambda: self.cluster.parts[name].kill(rest_s))

    def _kill_child(self, rng: random.Random) -> Act:
        return self._fault(rng, "kill child", lambda: self.cluster.kill_child(rng))

    def _freeze(self, rng: random.Random) -> Act:
        name, for_s = self._worker(rng), rng.uniform(*FREEZES_S)
        kind = "freeze worker beyond its lease" if for_s > self.cluster.settings.lease_s else "freeze worker"
        return self._fault(rng, kind, lambda: self.cluster.parts[name].freeze(for_s))

    def _cut_worker(self, rng: random.Random) -> Act:
        return self._cut(rng, "worker", self._worker(rng))

    def _cut_api(self, rng: random.Random) -> Act:
        return self._cut(rng, "api", f"api{rng.randrange(APIS)}")

    def _cut(self, rng: random.Random, kind: str, name: str) -> Act:
        servers = ["redis"] if self.cluster.postgres is None else ["redis", "database", "database"]
        server, how, for_s = rng.choice(servers), rng.choice(list(Cut)), rng.uniform(*CUTS_S)
        what = f"{kind} cut from {server}: {how}"
        return self._fault(rng, what, lambda: self.cluster.links[name, server].cut(how, for_s))

    def _redis_away(self, rng: random.Random) -> Act:
        rest_s = rng.uniform(*REDIS_AWAY_S)
        return self._fault(rng, "kill redis", lambda: self.cluster.parts["redis"].kill(rest_s))

    def _kill_database(self, rng: random.Random) -> Act:
        return self._fault(rng, "kill database", self.cluster.kill_database)

    def _flush(self, rng: random.Random) -> Act:
        return self._fault(rng, "lose wake-ups", self.users.lose_wakeups)

    def _ring(self, rng: random.Random) -> Act:
        times = rng.randint(2, 30)
        return self._fault(rng, "double wake-ups", lambda: self.users.ring(times))

    def _step_clock(self, rng: random.Random) -> Act:
        name, seconds = self._worker(rng), rng.choice((-86_400, -30, 30, 3600))
        return self._fault(rng, "step clock", lambda: self.cluster.step_clock(name, seconds))

    def _cut_leases(self, rng: random.Random) -> Act:
        return self._fault(rng, "expire leases early", self.users.expire_leases)

    def _crash_worker(self, rng: random.Random) -> Act:
        return self._restart(rng, self._worker(rng), self._crash(rng, WORKER_POINTS))

    def _crash_api(self, rng: random.Random) -> Act:
        return self._restart(rng, f"api{rng.randrange(APIS)}", self._crash(rng, API_POINTS))

    def _storage(self, rng: random.Random) -> Act:
        faults = ("error", "error", "damage", "damage", "full")
        puts = {rng.randint(1, 12): rng.choice(faults) for _ in range(2)}
        return self._restart(rng, self._worker(rng), Plan(puts=puts))

    def _crash(self, rng: random.Random, points: tuple[str, ...]) -> Plan:
        return Plan(crash_at=rng.choice(points), side=rng.choice(("before", "after")), nth=rng.randint(1, 3))

    def _restart(self, rng: random.Random, name: str, plan: Plan) -> Act:
        """A plan comes into force with a new process; what it does is counted by that process."""
        return Act(self._some_time(rng) / 2, "plan", lambda: self.cluster.restart(name, plan, 0.1))
