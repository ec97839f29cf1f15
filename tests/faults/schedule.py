"""What happens in one schedule, drawn from its seed: who submits and cancels what, and what breaks when."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.cluster import APIS, WORKERS, Cluster
from tests.faults.failpoints import API_POINTS, WORKER_POINTS, Plan
from tests.faults.users import Users

WINDOW_S = 9.0  # in which everything happens; then the service has peace to finish
SUBMITS_S = 5.0  # in which the jobs come
JOBS = 20
FAULTS = 12
RESTS_S = (0.1, 1.5)
REDIS_AWAY_S = (0.5, 4.0)
FREEZES_S = (1.0, 5.0)  # leases last 2.5
# Every commit of the service, on both sides; each schedule crashes at one, in turn, beside what it draws.
CRASHES = [("worker", p, side) for p in WORKER_POINTS for side in ("before", "after")]
CRASHES += [("api", p, side) for p in API_POINTS for side in ("before", "after")]


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

    def acts(self) -> list[Act]:
        """Everything that happens, in order."""
        rng = random.Random(self.seed)
        acts = [self._submit(rng, number) for number in range(JOBS)]
        kinds = [self._kill_worker, self._kill_api, self._kill_child, self._freeze, self._redis_away, self._flush]
        kinds += [self._ring, self._crash_worker, self._crash_api, self._storage, self._cut_leases, self._step_clock]
        kinds += [self._kill_database] if self.cluster.postgres is not None else []
        acts += [self._crash_in_turn(rng), *(rng.choice(kinds)(rng) for _ in range(FAULTS))]
        return sorted(acts)

    def _submit(self, rng: random.Random, number: int) -> Act:
        at_s = rng.uniform(0, SUBMITS_S)
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
        return Act(at_s, "submit", lambda: self.users.submit(job))

    def _fault(self, rng: random.Random, name: str, do: Callable[[], object]) -> Act:
        def count_and_do() -> None:
            if do() is not False:
                self.cluster.faults[name] += 1

        return Act(rng.uniform(0.3, WINDOW_S), name, count_and_do)

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

    def _crash_in_turn(self, rng: random.Random) -> Act:
        part, point, side = CRASHES[self.seed % len(CRASHES)]
        name = self._worker(rng) if part == "worker" else f"api{rng.randrange(APIS)}"
        return self._restart(rng, name, Plan(crash_at=point, side=side))

    def _storage(self, rng: random.Random) -> Act:
        faults = ("error", "error", "damage", "damage", "full")
        puts = {rng.randint(1, 12): rng.choice(faults) for _ in range(2)}
        return self._restart(rng, self._worker(rng), Plan(puts=puts))

    def _crash(self, rng: random.Random, points: tuple[str, ...]) -> Plan:
        return Plan(crash_at=rng.choice(points), side=rng.choice(("before", "after")), nth=rng.randint(1, 3))

    def _restart(self, rng: random.Random, name: str, plan: Plan) -> Act:
        """A plan comes into force with a new process; what it does is counted by that process."""
        return Act(rng.uniform(0.0, WINDOW_S / 2), "plan", lambda: self.cluster.restart(name, plan, 0.1))
