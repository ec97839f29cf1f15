"""Two workers take a queue in its order, each job once; and the benchmark that measures it finds what is wrong."""

import pytest

from benchmarks import queue_order
from benchmarks.queue_order import Run


@pytest.mark.timeout(600)
def test_two_workers_run_every_job_once_in_its_order(monkeypatch):
    monkeypatch.setattr(queue_order, "LENGTH", {"cycles": 1, "steps": 2})
    figures = queue_order.measure("postgresql", jobs=16)
    assert (figures["ran_once"], figures["order_inversions"]) == (16, 0)
    assert figures["workers"] == 2


def run(name, *, priority=0, accepted=0.0, claim=(1.0, 1.1), works=((1.0, 2.0),), worker="a"):
    return Run(
        rank=(-priority, accepted, name), accepted=accepted, created=accepted, claim=claim, works=works, worker=worker,
        succeeded_once=True,
    )  # fmt: skip


def test_an_overtaken_job_is_found():
    low = run("low", claim=(1.0, 1.1))
    assert queue_order.overtaken([low, run("high", priority=1, claim=(1.2, 1.3))]) == (1, 0)
    assert queue_order.overtaken([low, run("locked", priority=1, claim=(1.05, 1.2))]) == (0, 1)
    assert queue_order.overtaken([low, run("late", priority=1, accepted=1.05, claim=(1.2, 1.3))]) == (0, 0)
    assert queue_order.overtaken([low, run("younger", accepted=0.5, claim=(1.2, 1.3))]) == (0, 0)


def test_only_a_gap_in_which_a_job_waits_is_idle():
    first, second = run("first"), run("second", accepted=4.0, works=((5.0, 6.0),))
    elsewhere = run("elsewhere", accepted=1.5, works=((2.5, 9.0),), worker="b")
    gaps = queue_order.gaps([second, first, elsewhere])
    assert gaps == {"a": [(2.0, 5.0)], "b": []}
    assert queue_order.idle_s(gaps["a"][0], [first, second, elsewhere]) == 0.5 + 1.0
