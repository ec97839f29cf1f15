"""Files go when nobody can ask for them any more, and not before."""

import time
from dataclasses import replace

import pytest

from api import collector
from api.settings import Settings
from api.store import jobs, leases, storage
from api.store.garbage import expire_files
from api.store.storage import Storage, attempt_prefix, log_key

NOTHING_LASTS = 1e-9  # days


@pytest.fixture(params=[None, NOTHING_LASTS], ids=["kept for ever", "expires at once"])
def retention_days(request):
    return request.param


@pytest.fixture
def settings(tmp_path, database_url, retention_days, backing):
    """No file is too young to be deleted, and only the test deletes."""
    return Settings(
        home=tmp_path,
        storage_uri=backing.uri,
        database_url=database_url,
        redis_url=f"redis+socket://{tmp_path}/none.sock",
        orphans_after_s=0,
        collect_s=3600,
        retention_days=retention_days,
    )


@pytest.fixture
def collect(service, backing):
    """Run a round; returns the contents of all files that are left."""

    def run():
        time.sleep(0.05)  # so that everything is older than nothing
        collector.run_round(service.app.state.resources)
        return sorted(backing.read(key) for key in backing.stored())

    return run


def store(service, claim, content):
    source = service.folder / "file"
    source.write_bytes(content)
    return Storage(service.settings.storage_uri).put_file(source, attempt_prefix(claim.job_id, claim.token))


def keep_state(service, claim, cycle):
    """A state as a worker stores it: three files, two of which readers may see at the end."""
    manifest = []
    for path in ("state.json", "metrics.jsonl", "checkpoint/model.safetensors"):
        stored = store(service, claim, f"{path} {claim.job_id} {cycle}".encode())
        manifest.append({"path": path, "sha256": stored.sha256, "bytes": stored.bytes, "storage_key": stored.key})
    with service.database.transaction() as session:
        leases.record_checkpoint(session, claim, cycle, manifest)


def state_files(claim, cycle):
    names = ("checkpoint/model.safetensors", "metrics.jsonl", "state.json")
    return sorted(f"{name} {claim.job_id} {cycle}".encode() for name in names)


def test_only_the_newest_state_of_a_running_job_stays(service, collect):
    service.submit()
    claim = service.claim()
    keep_state(service, claim, 1)
    keep_state(service, claim, 2)
    assert collect() == state_files(claim, 2)
    with service.database.transaction() as session:
        leases.release(session, claim, "drain")
    stored = Storage(service.settings.storage_uri)
    resumed = [b"".join(stored.iterate(file["storage_key"])) for file in service.claim().resume]
    assert sorted(resumed) == state_files(claim, 2)


def test_what_no_row_names_goes(service, collect):
    service.submit()
    store(service, service.claim(), b"written before a crash")
    assert collect() == []


@pytest.mark.parametrize("retention_days", [None], indirect=True)
def test_files_of_an_ended_job_stay_for_ever_by_default(service, collect):
    job = service.submit()
    service.finish(service.claim())
    assert len(collect()) == 2
    assert service.client.get(f"/v1/jobs/{job['id']}/checkpoint").status_code == 200


@pytest.mark.parametrize("retention_days", [NOTHING_LASTS], indirect=True)
def test_an_expired_file_is_gone_and_says_so(service, collect):
    here = f"/v1/jobs/{service.submit()['id']}"
    service.finish(service.claim())
    content = service.client.get(f"{here}/artifacts").json()["data"][0]["links"]["content"]
    before = service.client.get(here).headers["ETag"]
    assert collect() == []
    for url in (content, f"{here}/checkpoint"):
        answer = service.client.get(url)
        assert (answer.status_code, answer.json()["code"]) == (410, "artifact_expired")
        assert "SENTINEL_RETENTION_DAYS" in answer.json()["next_step"]
    now = service.client.get(here, headers={"If-None-Match": before})
    assert (now.status_code, now.headers["ETag"] != before) == (200, True), "it is shown otherwise now"
    assert service.client.get(here, headers={"If-None-Match": now.headers["ETag"]}).status_code == 304
    shown = now.json()
    assert shown["state"] == "succeeded"
    assert all(artifact["expired_at"] for artifact in shown["artifacts"])


def test_a_retry_keeps_what_it_goes_on_from_until_it_has_gone_on(service, collect, retention_days):
    service.submit()
    parent = service.claim()
    keep_state(service, parent, 1)
    with service.database.transaction() as session:
        jobs.request_cancel(session, "ann", parent.job_id, grace_s=0)
        leases.finish_cancel(session, parent)
        jobs.retry_job(session, "ann", parent.job_id, from_start=False, max_attempts=3)
    assert collect() == state_files(parent, 1)
    child = service.claim()
    assert {file["storage_key"].split("/")[1] for file in child.resume} == {parent.job_id}
    keep_state(service, child, 2)
    of_parent = [] if retention_days else state_files(parent, 1)
    assert collect() == sorted(of_parent + state_files(child, 2))


@pytest.mark.parametrize("retention_days", [NOTHING_LASTS], indirect=True)
def test_what_a_retry_has_taken_over_since_the_round_began_stays(service, collect, monkeypatch):
    """Another replica lets go of the job that it retries, and this one has yet to look at the files."""
    job = service.submit()
    claim = service.claim()
    keep_state(service, claim, 1)

    def meanwhile(_storage, _age_s, *, prefix):
        if prefix != "jobs":
            return
        with service.database.transaction() as session:
            leases.fail(session, claim, {"message": "broken"}, retry=False)
        assert service.client.post(f"/v1/jobs/{job['id']}/retry").status_code == 201
        time.sleep(0.05)  # only what has ended earlier than now expires
        with service.database.transaction() as session:
            expire_files(session, retention_s=0)

    monkeypatch.setattr(Storage, "drop_unfinished", meanwhile)
    assert collect() == state_files(claim, 1)


@pytest.mark.parametrize("retention_days", [None], indirect=True)
def test_a_round_ends_when_the_server_is_to_stop(service, collect, monkeypatch):
    service.submit()
    claim = service.claim()
    for number in range(3):
        store(service, claim, b"garbage %d" % number)
    monkeypatch.setattr(storage, "KEYS_AT_ONCE", 1)
    delete = Storage.delete

    def delete_and_stop(self, keys):
        service.app.state.resources.stopping.set()
        delete(self, keys)

    monkeypatch.setattr(Storage, "delete", delete_and_stop)
    assert len(collect()) == 2


@pytest.mark.parametrize("retention_days", [None], indirect=True)
def test_young_files_stay_as_their_rows_may_be_about_to_be_written(service):
    resources = service.app.state.resources
    patient = resources.settings.model_copy(update={"orphans_after_s": 60.0})
    service.submit()
    stored = store(service, service.claim(), b"being published")
    collector.run_round(replace(resources, settings=patient))
    assert resources.storage.head(stored.key) > 0


def test_a_log_stays_as_long_as_its_job_s_files(service, collect, retention_days):
    service.submit()
    claim = service.claim()
    source = service.folder / "log"
    source.write_text("words")
    Storage(service.settings.storage_uri).put_log(source, log_key(claim.job_id, claim.token))
    assert collect() == [b"words"]
    service.finish(claim, {})
    assert collect() == ([] if retention_days else [b"words"])
