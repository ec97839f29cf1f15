"""What Prometheus reads of one API process: how the queue is, and what this process has done.

What the database knows is read anew at every scrape, so every replica says the same; counters are each process's own.
Names no tenant.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from api.store.statistics import Statistics


class Metrics:
    """The numbers of one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._jobs = Gauge("sentinel_jobs", "Jobs by state.", ["state"], registry=registry)
        self._queue_age = Gauge(
            "sentinel_queue_age_seconds", "How long that job has waited which may start for longest.", registry=registry
        )
        self.lease_expiries = Counter(
            "sentinel_lease_expiries", "Leases of silent workers that this process ended.", registry=registry
        )
        self.missed_deadlines = Counter(
            "sentinel_missed_deadlines", "Jobs without a worker that this process failed.", registry=registry
        )
        self.webhook_tries = Counter(
            "sentinel_webhook_tries", "Messages to webhooks that this process sent.", ["outcome"], registry=registry
        )

    def text(self, statistics: Statistics) -> bytes:
        """Everything, in Prometheus' text format."""
        for state, count in statistics.jobs.items():
            self._jobs.labels(state.value).set(count)
        self._queue_age.set(statistics.oldest_due_s)
        return generate_latest(self._registry)
