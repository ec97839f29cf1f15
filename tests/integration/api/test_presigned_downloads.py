"""Downloads that the service sends to the storage; what serves here is not AWS and lets no URL expire."""

import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from sentinel.client import SentinelClient
from sentinel.unfinished import DownloadDamaged

WEIGHTS = bytes(range(256)) * 9000
CHECKPOINT = {"checkpoint/config.json": b"{}\n", "checkpoint/model.safetensors": WEIGHTS}


@pytest.fixture
def more_settings(backing):
    return {"storage_uri": backing.uri, "presigned_downloads": True, "presigned_ttl_s": 120}


@pytest.fixture
def job(service):
    made = service.submit()
    service.finish(service.claim(), CHECKPOINT)
    return service.client.get(f"/v1/jobs/{made['id']}").json()


@pytest.fixture
def artifact(job):
    return next(a for a in job["artifacts"] if a["path"].endswith(".safetensors"))


@pytest.fixture
def url(artifact):
    return artifact["links"]["content"]


on_s3 = pytest.mark.parametrize("backing", ["s3"], indirect=True)


@on_s3
def test_a_download_is_sent_to_the_storage_for_a_short_while(service, url, bucket, artifact):
    answer = service.client.get(url)
    assert (answer.status_code, answer.headers["Cache-Control"], answer.content) == (307, "no-store", b"")
    location = urlsplit(answer.headers["Location"])
    assert location.path.startswith(f"/{bucket.name}/a/prefix/jobs/")
    assert location.path.endswith(artifact["sha256"])
    assert parse_qs(location.query)["X-Amz-Expires"] == ["120"]
    assert service.client.get(url, follow_redirects=True).content == WEIGHTS


@on_s3
def test_the_storage_gives_ranges_and_the_service_what_hangs_on_tags(service, url, artifact):
    tag = f'"{artifact["sha256"]}"'

    def ask(**headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = service.client.get(url, headers=named, follow_redirects=True)
        return len(answer.history), answer.status_code, answer.content

    assert ask(Range="bytes=5-9") == (1, 206, WEIGHTS[5:10])
    assert ask(Range="bytes=-3") == (1, 206, WEIGHTS[-3:])
    assert ask(Range="bytes=5-9", If_Range=tag) == (0, 206, WEIGHTS[5:10])
    assert ask(Range="bytes=5-9", If_Range='"other"') == (0, 200, WEIGHTS)
    assert ask(If_None_Match=tag) == (0, 304, b"")
    assert ask(Range=f"bytes={len(WEIGHTS)}-")[:2] == (0, 416)


@on_s3
def test_head_is_answered_here(service, url, artifact):
    answer = service.client.head(url)
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, str(len(WEIGHTS)))
    assert answer.headers["ETag"] == f'"{artifact["sha256"]}"'


@on_s3
def test_nobody_is_sent_to_a_file_that_is_lost_or_somebody_else_s(service, url, bucket):
    with service.client_of("bob") as bob:
        assert bob.get(url).status_code == 404
    for key in bucket.stored():
        bucket.remove(key)
    assert service.client.get(url).json()["code"] == "object_missing"


@pytest.fixture
def cancelled(service):
    """A job that is left with the checkpoint of a cycle."""
    job = service.submit()
    service.stop(service.claim(), CHECKPOINT)
    return job["id"]


@on_s3
def test_the_client_follows_without_its_key_and_verifies(service, cancelled, bucket, object_store, tmp_path):
    key = service.client.headers["Authorization"].removeprefix("Bearer ")
    object_store.requests.clear()
    with SentinelClient(service.base_url, key, patience_s=2) as client:
        folder = client.download_checkpoint(cancelled, tmp_path / "pruned")
        assert {f"checkpoint/{path.name}": path.read_bytes() for path in folder.iterdir()} == CHECKPOINT
        redirected = [asked for asked in object_store.requests if "X-Amz-Signature" in asked.query]
        assert len(redirected) == len(CHECKPOINT)
        assert not any("authorization" in asked.headers for asked in redirected)
        for stored in bucket.stored():
            bucket.write(stored, bytes(len(bucket.read(stored))))
        with pytest.raises(DownloadDamaged, match="announced"):
            client.download_checkpoint(cancelled, tmp_path / "again")
    assert not (tmp_path / "again").exists()


class Stopped(Exception):
    """As if the process ended here."""


def stop(done, _total):
    if done > len(WEIGHTS) // 2:
        raise Stopped


def test_a_client_goes_on_where_it_was_cut_off(service, cancelled, backing, tmp_path, request):
    key = service.client.headers["Authorization"].removeprefix("Bearer ")
    with SentinelClient(service.base_url, key, patience_s=2) as client:
        with pytest.raises(Stopped):
            client.download_checkpoint(cancelled, tmp_path / "pruned", progress=stop)
        before = (tmp_path / ".pruned.partial/files/model.safetensors").stat().st_size
        folder = client.download_checkpoint(cancelled, tmp_path / "pruned")
    assert {f"checkpoint/{path.name}": path.read_bytes() for path in folder.iterdir()} == CHECKPOINT
    if request.node.callspec.params["backing"] == "s3":
        last = request.getfixturevalue("object_store").requests[-1]
        assert (last.method, last.headers["range"]) == ("GET", f"bytes={before}-")
        assert "authorization" not in last.headers


FETCH = "import sys; from huggingface_hub import snapshot_download; print(snapshot_download(sys.argv[1]))"


@on_s3
def test_a_client_of_the_hub_follows_without_its_key(service, cancelled, object_store, tmp_path):
    object_store.requests.clear()
    fetch = (sys.executable, "-c", FETCH, f"jobs/{cancelled}")
    folder = Path(service.run_hub_client(tmp_path / "home", *fetch).strip())
    assert {f"checkpoint/{path.name}": path.read_bytes() for path in folder.iterdir()} == CHECKPOINT
    redirected = [asked for asked in object_store.requests if "X-Amz-Signature" in asked.query]
    assert len(redirected) == len(CHECKPOINT)
    assert not any("authorization" in asked.headers for asked in redirected)


@pytest.mark.parametrize("backing", ["file"], indirect=True)
def test_a_folder_has_no_urls_so_its_files_are_streamed(service, url):
    answer = service.client.get(url)
    assert (answer.status_code, answer.content) == (200, WEIGHTS)


@on_s3
def test_the_redirect_is_documented_for_get_alone(service):
    content = service.client.get("/openapi.json").json()["paths"]["/v1/artifacts/{artifact_id}/content"]
    assert "Location" in content["get"]["responses"]["307"]["headers"]
    assert "307" not in content["head"]["responses"]
