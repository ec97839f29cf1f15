"""The checker finds what it is there to find: a history without fault, spoiled in one place after the other."""

import pytest
from sqlalchemy import delete, text, update

from api.store import jobs, leases
from api.store.database import create_database, upgrade
from api.store.files import NewArtifact, kind_of
from api.store.models import Artifact, Attempt, Job, JobEvent, Metric, Outcome
from api.store.states import State
from api.store.storage import Storage
from sentinel.events import MetricRecorded
from tests.faults.cheap_runner import chain, weights_of
from tests.faults.checker import violations
from tests.faults.users import Wish

WISH = {"name": "w", "seed": 3, "cycles": 2, "steps": 2, "priority": 0, "after": "nothing", "after_s": 0, "grace_s": 0}
ERROR = {"code": "disk_full", "fault": "resource", "message": "m", "next_step": "n", "log_tail": "l"}


class Bench:
    """A job in a real database and storage, and what its user remembers."""

    def __init__(self, folder, session):
        self.session, self.folder = session, folder
        self.storage = Storage((folder / "storage").as_uri())
        self.wish = Wish(**WISH)
        self.job_id = jobs.accept_job(session, tenant="t", spec={}, max_attempts=9, name="w").job.id
        self.wish.job_ids.add(self.job_id)

    def claim(self):
        return leases.claim_next(self.session, worker="w", lease_s=60)

    def work(self, claim, points):
        said = [MetricRecorded(name="healing_loss", value=p.loss, step=p.step, cycle=p.cycle) for p in points]
        leases.record_events(self.session, claim, said)

    def succeed(self, claim, digest):
        contents = {"checkpoint/model.safetensors": weights_of(digest), "metrics.jsonl": b"m", "result.json": b"r"}
        new = [self._store(path, content) for path, content in (contents | {"runner.log": b"l"}).items()]
        leases.succeed(self.session, claim, {"digest": digest}, new)

    def _store(self, path, content):
        (self.folder / "file").write_bytes(content)
        stored = self.storage.put_file(self.folder / "file", f"jobs/{self.job_id}/{path}")
        described = {"sha256": stored.sha256, "bytes": stored.bytes, "storage_key": stored.key, "media_type": "m"}
        return NewArtifact(kind=kind_of(path) or "log", path=path, **described)

    def spoil(self, statement):
        """Write what the service never would; the triggers that forbid it are gone."""
        self.session.execute(statement)
        self.session.expire_all()

    def found(self):
        return list(violations(self.session, self.storage, self.wish))


@pytest.fixture
def bench(tmp_path):
    """A job that was interrupted once and then succeeded."""
    url = f"sqlite:///{tmp_path / 'sentinel.db'}"
    upgrade(url)
    database = create_database(url)
    with database.transaction() as session:
        for (name,) in session.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
            session.execute(text(f"DROP TRIGGER {name}"))
        bench = Bench(tmp_path, session)
        points = list(chain(3, 2, 2))
        first = bench.claim()
        bench.work(first, points[:3])
        leases.release(session, first, "drain")
        second = bench.claim()
        bench.work(second, points[2:])
        bench.succeed(second, points[-1].digest)
        yield bench
    database.close()


def test_a_history_without_fault_passes(bench):
    assert bench.found() == []


SPOILT = {
    "gaps": delete(JobEvent).where(JobEvent.seq == 3),
    "after its end": update(JobEvent).where(JobEvent.type == "metric", JobEvent.seq > 5).values(seq=JobEvent.seq + 100),
    "nobody had asked": update(Job).values(state=State.CANCELLED),
    "is still running": update(Job).values(state=State.RUNNING),
    "went from": update(JobEvent).where(JobEvent.seq == 2).values(data={"from": "paused", "to": "running"}),
    "claims": delete(Attempt).where(Attempt.token == 1),
    "have not": update(Attempt).where(Attempt.token == 1).values(outcome=None),
    "successful attempts": update(Attempt).values(outcome=Outcome.SUCCEEDED),
    "nobody foresaw": update(Attempt)
    .where(Attempt.token == 1)
    .values(error={"code": "attempt_broken", "message": "m"}),
    "same points twice": update(JobEvent).where(JobEvent.type == "metric").values(data={"name": "n", "step": 1}),
    "an older claim wrote": update(JobEvent).where(JobEvent.seq > 9).values(token=1),
    "metric that an older claim": update(Metric).where(Metric.step == 4).values(token=1),
    "another curve": update(Metric).where(Metric.step == 3, Metric.token == 2).values(value=0.5),
    "files of 2 claims": update(Artifact).where(Artifact.path == "result.json").values(token=1),
    "not stored": update(Artifact).where(Artifact.path == "result.json").values(storage_key="elsewhere"),
    "bytes are others": update(Artifact).where(Artifact.path == "result.json").values(sha256="0" * 64),
    "has published": delete(Artifact).where(Artifact.path == "metrics.jsonl"),
    "has the result": update(Job).values(result={"digest": "0"}),
    "lost or never promised": update(Job).values(name="another"),
}


@pytest.mark.parametrize("wrong", SPOILT)
def test_a_spoilt_history_is_found_out(bench, wrong):
    bench.spoil(SPOILT[wrong])
    assert any(wrong in line for line in bench.found()), bench.found()


def test_a_doubled_job_is_found_out(bench):
    bench.wish.job_ids.add(jobs.accept_job(bench.session, tenant="t", spec={}, max_attempts=9, name="w").job.id)
    assert any("2 different jobs" in line for line in bench.found())


@pytest.mark.parametrize(
    ("error", "wrong"),
    [(ERROR, None), (ERROR | {"code": "experiment_bug"}, "failed with"), ({"code": "disk_full"}, "without saying")],
)
def test_a_failure_must_be_fair_and_explained(bench, error, wrong):
    job_id = jobs.accept_job(bench.session, tenant="t", spec={}, max_attempts=9, name="w").job.id
    bench.wish.retry_ids.add(job_id)
    claim = bench.claim()
    bench.spoil(update(Job).where(Job.id == job_id).values(max_attempts=1))
    leases.fail(bench.session, claim, {"message": "m"} | error, retry=False)
    assert (wrong is None and bench.found() == []) or any(wrong in line for line in bench.found())


def test_the_chain_of_a_resumed_run_is_that_of_a_whole_one():
    whole = list(chain(5, 3, 4))
    assert list(chain(5, 3, 4, done=1, digest=whole[3].digest)) == whole[4:]
    assert len({point.loss for point in whole}) == len(whole)
