"""A worker answers Prometheus on a port of its own, and measures phases from one to the next."""

import httpx
import pytest

from worker.metrics import PhaseClock, WorkerMetrics, serving


def test_numbers_are_served_while_the_worker_lives_and_not_longer(free_tcp_port):
    metrics = WorkerMetrics()
    url = f"http://127.0.0.1:{free_tcp_port}/metrics"
    with serving(metrics, free_tcp_port):
        metrics.attempts.labels("succeeded").inc()
        assert 'sentinel_attempts_total{outcome="succeeded"} 1.0' in httpx.get(url).text
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_without_a_port_nothing_is_served():
    with serving(WorkerMetrics(), None):
        pass


def test_a_phase_lasts_until_the_next_begins():
    metrics = WorkerMetrics()
    clock = PhaseClock(metrics.phases)
    clock.start("loading")
    clock.start("pruning")
    clock.stop()
    clock.stop()
    counts = {
        sample.labels["phase"]: sample.value
        for sample in next(iter(metrics.phases.collect())).samples
        if sample.name.endswith("_count")
    }
    assert counts == {"loading": 1, "pruning": 1}
