"""Uploads: declared, sent, checked, named by specs, kept as long as they are needed, and never half there."""

import hashlib

import pytest

from api.settings import Settings
from sentinel.paths import BUILTIN_MODELS

on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
on_both_storages = pytest.mark.parametrize("backing", ["file", "s3"], indirect=True)
MODEL = {path.name: path.read_bytes() for path in sorted((BUILTIN_MODELS / "llama").iterdir())}
TEXT = {"stories.txt": b"Once upon a time.\n\nThe end.\n" * 50}
PRUNE = {"target": {"sparsity": 0.25}}


@pytest.fixture
def settings(tmp_path, database_url, more_settings, backing):
    """No file is too young to be deleted, and only the test deletes."""
    redis_url = f"redis+socket://{tmp_path}/none.sock"
    limits = {"max_upload_file_bytes": 5_000_000, "max_upload_bytes": 6_000_000, "max_upload_files": 20}
    return Settings(
        home=tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        storage_uri=backing.uri,
        orphans_after_s=0,
        **{"max_body_bytes": 4096, **limits, **more_settings},
    )


@pytest.fixture
def backing(request, tmp_path):
    """A folder, unless the test names its storages."""
    return request.getfixturevalue("bucket") if getattr(request, "param", "file") == "s3" else folder_in(tmp_path)


def folder_in(tmp_path):
    from tests.object_store import Folder

    return Folder(tmp_path / "storage")


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
        answer = client.put(file["href"], content=files[file["path"]])
    return answer


def upload(client, files, kind="model", **more):
    answer = send(client, declare(client, files, kind, **more), files)
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "ready"
    return answer.json()


@on_both_databases
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
