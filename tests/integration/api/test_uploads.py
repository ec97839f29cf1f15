"""Uploads: declared, sent, checked, named by specs, kept as long as they are needed, and never half there."""

import hashlib
import io
import random
import socket
import subprocess
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

import api.jobs.sources
from api import collector
from api.settings import Settings
from api.store import sources
from api.store.uploads import uploaded_bytes
from api.uploads import spool
from sentinel.errors import ModelInvalid
from sentinel.paths import BUILTIN_MODELS

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
on_both_storages = pytest.mark.parametrize("backing", ["file", "s3"], indirect=True)
MODEL = {path.name: path.read_bytes() for path in sorted((BUILTIN_MODELS / "llama").iterdir())}
TEXT = {"stories.txt": b"Once upon a time.\n\nThe end.\n" * 50}
PRUNE = {"target": {"sparsity": 0.25}}


@pytest.fixture
def settings(tmp_path, database_url, more_settings, backing):
    """No file is too young to be deleted, and only the test deletes."""
    limits = {"max_upload_file_bytes": 5_000_000, "max_upload_bytes": 6_000_000, "max_upload_files": 20}
    return Settings(
        home=tmp_path,
        database_url=database_url,
        redis_url=f"redis+socket://{tmp_path}/none.sock",
        storage_uri=backing.uri,
        orphans_after_s=0,
        max_body_bytes=4096,
        **{**limits, **more_settings},
    )


@pytest.fixture
def backing(request, tmp_path):
    """A folder, unless the test names its storages."""
    from tests.object_store import Folder

    named = getattr(request, "param", "file")
    return Folder(tmp_path / "storage") if named == "file" else request.getfixturevalue("bucket")


def declaration(files, kind="model", **more):
    declared = [
        {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in files.items()
    ]
    return {"kind": kind, "files": declared, **more}


def declare(client, files, kind="model", **more):
    answer = client.post("/v1/uploads", json=declaration(files, kind, **more))
    assert answer.status_code == 201, answer.text
    return answer.json()


def send(client, upload, files):
    """Every file; the last answer."""
    for file in upload["files"]:
        answer = client.put(file["links"]["content"], content=files[file["path"]])
    return answer


def upload(client, files, kind="model", **more):
    answer = send(client, declare(client, files, kind, **more), files)
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "ready"
    return answer.json()


@on_both_storages
def test_a_model_is_declared_sent_and_ready(service, backing):
    made = declare(service.client, MODEL, name="mine")
    assert (made["state"], made["kind"], made["name"], made["error"]) == ("open", "model", "mine", None)
    assert made["bytes"] == sum(map(len, MODEL.values()))
    assert backing.stored() == []
    ready = send(service.client, made, MODEL).json()
    assert ready["state"] == "ready"
    assert all(file["stored"] for file in ready["files"])
    assert {backing.read(key) for key in backing.stored()} == set(MODEL.values())
    assert all(key.startswith(f"uploads/{made['id']}/") for key in backing.stored())
    assert service.client.get(made["links"]["self"]).json() == ready
    assert list((service.settings.home / "spool").iterdir()) == []


def spooled(service):
    return list((service.settings.home / "spool").glob("*"))


def test_a_text_is_one_file(service):
    made = upload(service.client, TEXT, "text")
    assert [file["path"] for file in made["files"]] == ["stories.txt"]


def packed(files, suffix, folder=""):
    """One archive of these files."""
    content = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(folder + name, data)
    else:
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(folder + name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return {f"model{suffix}": content.getvalue()}


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_an_archive_gives_way_to_the_model_in_it(service, backing, suffix):
    others = {"README.md": b"words", "plots/losses.png": b"png", "pytorch_model.bin": b"pickle"}
    archive = packed({**MODEL, **others}, suffix, folder="./my model/")
    made = upload(service.client, archive)
    assert {file["path"]: file["sha256"] for file in made["files"]} == {
        path: hashlib.sha256(content).hexdigest() for path, content in MODEL.items()
    }
    assert made["bytes"] == sum(map(len, MODEL.values()))
    assert {backing.read(key) for key in backing.stored()} == set(MODEL.values())
    # Whoever did not hear the answer sends it again.
    assert service.client.put(f"{made['links']['self']}/files/0", content=archive[f"model{suffix}"]).json() == made
    assert spooled(service) == []


def test_an_archive_that_is_refused_leaves_nothing_and_says_why(service, backing):
    archive = packed({**MODEL, "../config.json": b"{}"}, ".tar")
    answer = send(service.client, made := declare(service.client, archive), archive)
    assert (answer.status_code, answer.json()["code"]) == (422, "archive_member_outside")
    shown = service.client.get(made["links"]["self"]).json()
    assert (shown["state"], shown["error"]["code"]) == ("refused", "archive_member_outside")
    assert backing.stored() == spooled(service) == []
    again = service.client.put(made["files"][0]["links"]["content"], content=archive["model.tar"])
    assert (again.status_code, again.json()["code"]) == (409, "upload_not_ready")


@pytest.mark.parametrize("more_settings", [{"max_tenant_upload_bytes": 4_500_000}])
def test_what_an_archive_becomes_counts_against_the_tenant(service):
    archive = packed({**MODEL, "other.json": random.Random(0).randbytes(1_000_000).hex().encode()}, ".zip")
    answer = send(service.client, made := declare(service.client, archive), archive)
    assert (answer.status_code, answer.json()["code"]) == (507, "uploads_full")
    assert service.client.get(made["links"]["self"]).json()["state"] == "open"


def test_bytes_that_were_not_declared_do_not_count_and_the_right_ones_do(service, backing):
    made, right = declare(service.client, TEXT, "text"), TEXT["stories.txt"]
    for content in (b"", right[:-1], right + b"!", right.upper()):
        answer = service.client.put(made["files"][0]["links"]["content"], content=content)
        assert (answer.status_code, answer.json()["code"]) == (422, "file_mismatch")
        assert backing.stored() == spooled(service) == []
    assert send(service.client, made, TEXT).json()["state"] == "ready"


def test_a_connection_that_breaks_off_leaves_the_upload_waiting(service, backing):
    made = declare(service.client, TEXT, "text")
    host = service.base_url.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2]))) as connection:
        head = f"PUT {made['files'][0]['links']['content']} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1400\r\n"
        key = service.client.headers["Authorization"]
        connection.sendall(f"{head}Authorization: {key}\r\n\r\n".encode() + b"Once upon")
        deadline = time.monotonic() + 10
        while not spooled(service):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    while spooled(service):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert backing.stored() == []
    assert service.client.get(made["links"]["self"]).json()["files"][0]["stored"] is False
    assert send(service.client, made, TEXT).json()["state"] == "ready"


FILE = {"path": "a.txt", "bytes": 1, "sha256": "0" * 64}


def test_what_cannot_become_an_upload_is_refused_with_every_mistake(service):
    files = [FILE | {"path": "../a.txt"}, FILE | {"bytes": -1}]
    answer = service.client.post("/v1/uploads", json={"kind": "poem", "files": files})
    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/kind", "/files/0/path", "/files/1/bytes"}


def test_what_is_too_large_is_refused_before_it_is_sent(service):
    def post(sizes):
        files = [FILE | {"path": f"{i}.safetensors", "bytes": size} for i, size in enumerate(sizes)]
        return service.client.post(
            "/v1/uploads", json={"kind": "model", "files": [FILE | {"path": "config.json"}, *files]}
        )

    assert post([5_000_000]).status_code == 201
    for sizes in ([5_000_001], [3_000_000, 3_000_000], [1] * 20):
        answer = post(sizes)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    made = declare(service.client, TEXT, "text")
    answer = service.client.put(made["files"][0]["links"]["content"], content=bytes(5_000_001))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@on_both_databases
@pytest.mark.parametrize("more_settings", [{"max_tenant_upload_bytes": 3000}])
def test_a_tenant_has_so_many_bytes_however_many_ask_at_once(service):
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: service.client.post("/v1/uploads", json=declaration(TEXT, "text")), range(6)))
    refused = [answer for answer in answers if answer.status_code != 201]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(507, "uploads_full")] * 4
    with service.database.reading() as session:
        assert uploaded_bytes(session, "ann") == 2 * len(TEXT["stories.txt"])
        assert uploaded_bytes(session, "bob") == 0
    made = next(answer.json() for answer in answers if answer.status_code == 201)
    assert service.client.delete(made["links"]["self"]).status_code == 204
    declare(service.client, TEXT, "text")


@on_both_databases
def test_an_idempotency_key_stands_for_one_upload(service):
    headers = {"Idempotency-Key": "mine"}

    def post(**changes):
        return service.client.post("/v1/uploads", json=declaration(TEXT, "text", **changes), headers=headers)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(), range(4)))
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 3
    assert (post(name="other").status_code, post(name="other").json()["code"]) == (422, "idempotency_mismatch")


def test_somebody_else_s_upload_is_not_there(service):
    made = declare(service.client, TEXT, "text")
    with service.client_of("bob") as bob:
        answers = [bob.get(made["links"]["self"]), bob.delete(made["links"]["self"])]
        answers.append(bob.put(made["files"][0]["links"]["content"], content=TEXT["stories.txt"]))
        assert [(a.status_code, a.json()["code"]) for a in answers] == [(404, "upload_not_found")] * 3
        assert bob.get("/v1/uploads").json()["data"] == []
    unknown = service.client.put(f"{made['links']['self']}/files/1", content=b"")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "upload_file_not_found")


def test_pages_of_uploads(service):
    ids = [declare(service.client, TEXT, "text")["id"] for _ in range(3)]
    first = service.client.get("/v1/uploads", params={"limit": 2}).json()
    assert ([u["id"] for u in first["data"]], first["has_more"]) == ([ids[2], ids[1]], True)
    declare(service.client, TEXT, "text")
    second = service.client.get("/v1/uploads", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([u["id"] for u in second["data"]], second["next_cursor"]) == ([ids[0]], None)
    assert service.client.get("/v1/uploads", params={"cursor": "am9iXzE"}).json()["code"] == "cursor_invalid"


def test_weights_with_a_damaged_header_are_refused_when_they_are_all_here(service, backing):
    broken = {**MODEL, "model.safetensors": MODEL["model.safetensors"].replace(b'"shape"', b'"shame"')}
    answer = send(service.client, made := declare(service.client, broken), broken)
    while answer.status_code == 200:
        answer = send(service.client, made, broken)
    assert answer.json()["code"] in ("model_invalid", "upload_not_ready")
    shown = service.client.get(made["links"]["self"]).json()
    assert (shown["state"], shown["error"]["code"], shown["error"]["fault"]) == ("refused", "model_invalid", "user")
    huge = (10**8).to_bytes(8, "little") + bytes(100)
    archive = packed({**MODEL, "model.safetensors": huge}, ".tar")
    answer = send(service.client, declare(service.client, archive), archive)
    assert (answer.status_code, answer.json()["code"]) == (422, "model_invalid")


@pytest.fixture
def full_disk(tmp_path):
    """A file system with room for almost nothing, where bodies go first."""
    folder = tmp_path / "spool"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system that is soon full")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("reserve", [0, -(10**9)], ids=["as it is to begin", "as it gets"])
def test_a_full_disk_is_said_and_nothing_is_left(full_disk, service, backing, monkeypatch, reserve):
    monkeypatch.setattr(spool, "KEPT_FREE_BYTES", reserve)
    made = declare(service.client, MODEL)
    answers = [service.client.put(file["links"]["content"], content=MODEL[file["path"]]) for file in made["files"]]
    full = [answer for answer in answers if answer.status_code == 507]
    assert {answer.json()["code"] for answer in full} == {"space_exhausted"}
    assert len(full) == sum(len(content) > 64 * 1024 for content in MODEL.values())
    shown = service.client.get(made["links"]["self"]).json()
    assert {file["path"] for file in shown["files"] if not file["stored"]} == {
        path for path, content in MODEL.items() if len(content) > 64 * 1024
    }
    assert list(full_disk.iterdir()) == []


@pytest.mark.parametrize("backing", ["s3"], indirect=True)
def test_a_storage_that_is_away_is_said_and_the_file_can_be_sent_again(service, backing):
    made = declare(service.client, TEXT, "text")
    backing.store.refuse = lambda request: "403 Forbidden" if request.method == "PUT" else None
    answer = send(service.client, made, TEXT)
    assert (answer.status_code, answer.json()["code"]) == (503, "unready")
    assert int(answer.headers["Retry-After"]) > 0
    backing.store.refuse = lambda _: None
    assert send(service.client, made, TEXT).json()["state"] == "ready"


def names(model=None, **data):
    spec = {"model": {"source": "upload", "id": model} if model else "builtin/llama", "prune": PRUNE}
    return spec | ({"data": {"source": "upload", "sequence_length": 64, **data}} if data else {})


@on_both_databases
def test_a_spec_names_uploads_and_its_worker_gets_their_files(service):
    model, text = upload(service.client, MODEL), upload(service.client, TEXT, "text")
    job = service.client.post("/v1/jobs", json=names(model["id"], train=text["id"])).json()
    like_it = service.client.post(
        "/v1/jobs", json=names() | {"data": {"source": "builtin", "sequence_length": 64}}
    ).json()
    assert job["spec"]["model"] == {"source": "upload", "id": model["id"], "dtype": "float32"}
    assert job["needs_bytes"] == like_it["needs_bytes"] > 0
    with service.database.reading() as session:
        inputs = sources.inputs_of(session, job["id"])
    assert {file["path"] for file in inputs["model"]} == set(MODEL)
    assert [file["path"] for file in inputs["train"]] == ["stories.txt"]
    assert inputs.keys() == {"model", "train"}


def test_what_a_spec_may_not_name_is_told_at_once(service):
    model, text = upload(service.client, MODEL), upload(service.client, TEXT, "text")
    unfinished = declare(service.client, TEXT, "text")
    with service.client_of("bob") as bob:
        others = upload(bob, TEXT, "text")
    nobody = "upl_" + "0" * 32
    cases = {
        (text["id"], text["id"], None): {"/model/id": "upload_kind_wrong"},
        (nobody, model["id"], others["id"]): {
            "/model/id": "upload_not_found",
            "/data/train": "upload_kind_wrong",
            "/data/evaluation": "upload_not_found",
        },
        (model["id"], unfinished["id"], None): {"/data/train": "upload_not_ready"},
        (model["id"], text["id"], text["id"]): {"/data": "value_error"},
        ("../x", "upl_1", None): dict.fromkeys(("/model/id", "/data/train"), "string_pattern_mismatch"),
    }
    for (named, train, evaluation), mistakes in cases.items():
        document = names(named, train=train, evaluation=evaluation)
        answer = service.client.post("/v1/jobs", json=document)
        assert answer.status_code == 422
        assert {error["pointer"]: error["code"] for error in answer.json()["errors"]} == mistakes
        verdict = service.client.post("/v1/jobs/validate", json=document).json()
        assert {error["pointer"]: error["code"] for error in verdict["errors"]} == mistakes
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_what_the_points_of_a_sweep_may_not_name_is_told_where_it_is(service):
    model, text = upload(service.client, MODEL), upload(service.client, TEXT, "text")
    first, second = ("upl_" + digit * 32 for digit in "01")

    def of(upload_id):
        return {"source": "upload", "id": upload_id}

    seeds = {"seed": [0, 1]}
    cases = [
        ({"model": of(first)}, seeds, {"/spec/model/id": "upload_not_found"}),
        (
            {},
            seeds | {"model": [of(first), of(model["id"]), of(text["id"]), of(second)]},
            {
                "/grid/model/0/id": "upload_not_found",
                "/grid/model/2/id": "upload_kind_wrong",
                "/grid/model/3/id": "upload_not_found",
            },
        ),
        (
            {"model": of(first)},
            {"data.train": [model["id"], second], "data.source": ["upload"]},
            {
                "/spec/model/id": "upload_not_found",
                "/grid/data.train/0": "upload_kind_wrong",
                "/grid/data.train/1": "upload_not_found",
            },
        ),
    ]
    for spec, grid, mistakes in cases:
        document = {"spec": {"prune": PRUNE, **spec}, "grid": grid}
        verdict = service.client.post("/v1/sweeps/validate", json=document).json()
        assert {error["pointer"]: error["code"] for error in verdict["errors"]} == mistakes
        answer = service.client.post("/v1/sweeps", json=document)
        assert (answer.status_code, answer.json()["code"]) == (422, "sweep_invalid")
        assert answer.json()["errors"] == verdict["errors"]
    assert service.client.get("/v1/sweeps").json()["data"] == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("kind", ["jobs", "sweeps"])
def test_a_check_holds_no_lock_while_it_reads_a_model(service, monkeypatch, kind):
    model = upload(service.client, MODEL)

    def read_slowly(*_):
        assert service.client.delete(model["links"]["self"], timeout=2).status_code == 204
        raise ModelInvalid("It is gone.")

    monkeypatch.setattr(api.jobs.sources, "shape_of", read_slowly)
    spec = names(model["id"])
    document = spec if kind == "jobs" else {"spec": spec, "grid": {"seed": [0]}}
    verdict = service.client.post(f"/v1/{kind}/validate", json=document).json()
    assert [error["code"] for error in verdict["errors"]] == ["upload_not_found"]


def test_a_sweep_that_was_accepted_is_given_again_though_its_upload_is_gone(service):
    model = upload(service.client, MODEL)
    document = {"spec": names(model["id"]), "grid": {"seed": [0, 1]}}

    def post():
        return service.client.post("/v1/sweeps", json=document, headers={"Idempotency-Key": "k"})

    sweep = post().json()
    service.client.post(f"{sweep['links']['self']}/cancel")
    assert service.client.delete(model["links"]["self"]).status_code == 204
    assert service.client.post("/v1/sweeps/validate", json=document).json()["valid"] is False
    assert (post().status_code, post().json()["id"]) == (201, sweep["id"])


@on_both_databases
def test_an_upload_stays_while_a_job_needs_it(service, backing):
    text = upload(service.client, TEXT, "text")
    made = service.client.post("/v1/jobs", json=names(train=text["id"]), headers={"Idempotency-Key": "k"}).json()
    here = text["links"]["self"]
    answer = service.client.delete(here)
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_in_use")
    assert made["id"] in answer.json()["detail"]
    service.client.post(f"{made['links']['self']}/cancel")
    assert service.client.delete(here).status_code == 204
    assert service.client.get(here).status_code == 404
    # The request is still answered with its job, but no new job can have it.
    again = service.client.post("/v1/jobs", json=names(train=text["id"]), headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"]) == (201, made["id"])
    retried = service.client.post(made["links"]["retry"])
    assert (retried.status_code, retried.json()["errors"][0]["code"]) == (422, "upload_not_found")
    deadline = time.monotonic() + 10
    while backing.stored():  # they go behind the answer
        assert time.monotonic() < deadline
        time.sleep(0.01)


@on_both_databases
@pytest.mark.parametrize("more_settings", [{"retention_days": 1e-9}])
def test_the_checkpoint_of_a_job_is_a_model_and_stays_while_a_job_needs_it(service, backing):
    parent = service.submit()
    document = {"model": {"source": "job", "id": parent["id"]}, "prune": PRUNE}
    answer = service.client.post("/v1/jobs", json=document)
    assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [("/model/id", "no_checkpoint")]
    files = {f"checkpoint/{path}": content for path, content in MODEL.items()}
    service.finish(service.claim(), {**files, "checkpoint/plots/losses.png": b"png", "result.json": b"{}"})
    with service.client_of("bob") as bob:
        assert bob.post("/v1/jobs", json=document).json()["errors"][0]["code"] == "job_not_found"
    child = service.client.post("/v1/jobs", json=document).json()
    like_it = service.client.post("/v1/jobs", json={"model": "builtin/llama", "prune": PRUNE}).json()
    assert child["needs_bytes"] == like_it["needs_bytes"]
    with service.database.reading() as session:
        assert {file["path"] for file in sources.inputs_of(session, child["id"])["model"]} == set(MODEL)
    collector.run_round(service.app.state.resources)
    assert len(backing.stored()) == len(files) + 2
    service.client.post(f"{child['links']['self']}/cancel")
    collector.run_round(service.app.state.resources)
    assert backing.stored() == []
    answer = service.client.post("/v1/jobs", json=document)
    assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [("/model/id", "artifact_expired")]


@pytest.mark.parametrize("more_settings", [{"uploads_abandoned_s": 1e-9}])
def test_only_what_was_never_finished_is_collected(service, backing):
    ready, abandoned = upload(service.client, TEXT, "text"), declare(service.client, MODEL)
    service.client.put(abandoned["files"][0]["links"]["content"], content=MODEL[abandoned["files"][0]["path"]])
    (service.settings.home / "spool" / "left behind").write_bytes(b"by a process that was killed")
    assert len(backing.stored()) == 2
    time.sleep(0.05)  # so that everything is older than nothing
    collector.run_round(service.app.state.resources)
    assert [upload["id"] for upload in service.client.get("/v1/uploads").json()["data"]] == [ready["id"]]
    assert [backing.read(key) for key in backing.stored()] == list(TEXT.values())
    assert spooled(service) == []
