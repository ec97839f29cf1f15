"""What Prometheus reads of one worker process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

WAITS_S = (0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120, 600, 3600)
PHASES_S = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600)


class WorkerMetrics:
    """The numbers of one process.

    Attributes:
        busy: Slots that run a job now.
        idle_while_waiting: Seconds that free slots let a job wait which they could have run.
        claim_wait: From when a job might start until its claim.
        phases: How long each phase of an experiment took.
        attempts: Attempts that this worker brought to an end, by outcome.
        fenced: Attempts that stopped because their lease was gone.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.busy = Gauge("sentinel_busy_slots", "Slots that run a job.", registry=registry)
        self.idle_while_waiting = Counter(
            "sentinel_idle_while_waiting_seconds",
            "Slot seconds that stayed free from one look to the next though a job waited that would have fitted.",
            registry=registry,
        )
        self.claim_wait = Histogram(
            "sentinel_claim_wait_seconds",
            "From when a job might start until its claim.",
            buckets=WAITS_S,
            registry=registry,
        )
        self.phases = Histogram(
            "sentinel_phase_seconds", "Length of an experiment's phase.", ["phase"], buckets=PHASES_S, registry=registry
        )
        self.attempts = Counter("sentinel_attempts", "Attempts that ended here.", ["outcome"], registry=registry)
        self.fenced = Counter("sentinel_fenced_writes", "Attempts whose lease was gone.", registry=registry)


class PhaseClock:
    """Measures the phases of one attempt, each from its beginning to that of the next."""

    def __init__(self, phases: Histogram) -> None:
        self._phases = phases
        self._running: tuple[str, float] | None = None

    def start(self, phase: str) -> None:
        """A phase begins, so the one before it has ended."""
        self.stop()
        self._running = (phase, time.monotonic())

    def stop(self) -> None:
        """The last phase has ended."""
        if self._running is not None:
            phase, began = self._running
            self._phases.labels(phase).observe(time.monotonic() - began)
        self._running = None


@contextmanager
def serving(metrics: WorkerMetrics, port: int | None) -> Iterator[None]:
    """Answer Prometheus on every interface while the context lasts; without a port nobody is answered."""
    if port is None:
        yield
        return
    server, thread = start_http_server(port, registry=metrics.registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
