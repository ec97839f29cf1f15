"""Downloads over a real socket: ranges, tags, digests, and the tar of a checkpoint."""

import base64
import hashlib
import io
import tarfile

import pytest

WEIGHTS = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(WEIGHTS)
CHECKPOINT = {"checkpoint/config.json": b"{}\n", "checkpoint/model.safetensors": WEIGHTS}


@pytest.fixture
def more_settings(backing):
    return {"storage_uri": backing.uri}


@pytest.fixture
def job(service):
    made = service.submit()
    plots = {'plots/a "b"\r\né.png': b"png", "plots/empty.png": b"", "plots/losses.svg": b"<svg/>"}
    service.finish(service.claim(), CHECKPOINT | plots)
    return service.client.get(f"/v1/jobs/{made['id']}").json()


@pytest.fixture
def url(job):
    return next(a["links"]["content"] for a in job["artifacts"] if a["path"].endswith(".safetensors"))


def test_the_whole_file_with_its_proofs(service, url):
    answer = service.client.get(url)
    assert (answer.status_code, answer.content) == (200, WEIGHTS)
    assert answer.headers["ETag"] == f'"{SHA256.hexdigest()}"'
    assert answer.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == str(len(WEIGHTS))
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''model.safetensors"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_picture_is_saved_and_not_shown_as_a_page_of_the_service(service, job):
    (url,) = [a["links"]["content"] for a in job["artifacts"] if a["path"] == "plots/losses.svg"]
    headers = service.client.get(url).headers
    assert headers["Content-Disposition"].startswith("attachment;")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_head_says_the_same_without_the_bytes(service, url):
    head, get = service.client.head(url), service.client.get(url)
    named = ("ETag", "Repr-Digest", "Accept-Ranges", "Content-Length", "Content-Disposition", "Content-Type")
    assert head.content == b""
    assert {name: head.headers[name] for name in named} == {name: get.headers[name] for name in named}


@pytest.mark.parametrize(
    ("asked", "part"),
    [("bytes=0-99", slice(0, 100)), ("bytes=2000000-", slice(2000000, None)), ("bytes=-7", slice(-7, None))],
)
def test_a_range_is_206_with_exactly_its_bytes(service, url, asked, part):
    answer = service.client.get(url, headers={"Range": asked})
    begin, end, size = part.indices(len(WEIGHTS))[0], part.indices(len(WEIGHTS))[1], len(WEIGHTS)
    assert (answer.status_code, answer.content) == (206, WEIGHTS[part])
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{size}"
    assert answer.headers["Content-Length"] == str(end - begin)


def test_a_range_past_the_end_is_416(service, url):
    answer = service.client.get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_unsatisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"


def test_several_ranges_get_the_whole_file(service, url):
    answer = service.client.get(url, headers={"Range": "bytes=0-1,4-5"})
    assert (answer.status_code, len(answer.content)) == (200, len(WEIGHTS))


def test_if_range_honours_a_range_only_of_the_same_bytes(service, url):
    asked = {"Range": "bytes=0-9"}
    same = service.client.get(url, headers=asked | {"If-Range": f'"{SHA256.hexdigest()}"'})
    other = service.client.get(url, headers=asked | {"If-Range": '"other"'})
    assert (same.status_code, len(same.content)) == (206, 10)
    assert (other.status_code, len(other.content)) == (200, len(WEIGHTS))


def test_who_has_the_bytes_gets_304(service, url):
    answer = service.client.get(url, headers={"If-None-Match": f'"x", "{SHA256.hexdigest()}"', "Range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == f'"{SHA256.hexdigest()}"'


def test_an_interrupted_download_can_go_on(service, url):
    with service.client.stream("GET", url) as answer:
        begun = next(answer.iter_bytes(1000))
    rest = service.client.get(url, headers={"Range": f"bytes={len(begun)}-", "If-Range": answer.headers["ETag"]})
    assert begun + rest.content == WEIGHTS


def test_an_empty_file_and_a_nasty_name(service, job):
    empty, nasty = (
        next(a["links"]["content"] for a in job["artifacts"] if marker in a["path"]) for marker in ("empty", "é")
    )
    assert (service.client.get(empty).status_code, service.client.get(empty).content) == (200, b"")
    disposition = service.client.get(nasty).headers["Content-Disposition"]
    assert disposition == "attachment; filename*=UTF-8''a%20%22b%22%0D%0A%C3%A9.png"


def hub_url(job):
    return f"/hub/jobs/{job['id']}/resolve/main/model.safetensors"


def test_a_file_that_the_storage_lost_is_an_error_not_a_short_answer(service, backing, job, url):
    backing.remove(next(key for key in backing.stored() if key.endswith(SHA256.hexdigest())))
    for asked in (url, job["checkpoint_uri"], hub_url(job)):
        answer = service.client.get(asked)
        assert (answer.status_code, answer.json()["code"]) == (500, "object_missing")


def test_and_so_is_one_that_it_cut_short(service, backing, job, url):
    backing.write(next(key for key in backing.stored() if key.endswith(SHA256.hexdigest())), WEIGHTS[:-1])
    for asked in (url, job["checkpoint_uri"], hub_url(job)):
        answer = service.client.get(asked)
        assert (answer.status_code, answer.json()["code"]) == (500, "object_damaged")
        assert f"has {len(WEIGHTS) - 1} bytes, not {len(WEIGHTS)} bytes" in answer.json()["detail"]


def test_the_checkpoint_is_a_tar_of_the_models_folder(service, job):
    answer = service.client.get(job["checkpoint_uri"])
    assert answer.headers["Content-Type"] == "application/x-tar"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["Content-Disposition"].endswith(f"{job['id']}.tar")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        found = {info.name: archive.extractfile(info).read() for info in archive.getmembers()}
    assert found == {path.removeprefix("checkpoint/"): content for path, content in CHECKPOINT.items()}


@pytest.mark.parametrize("backing", ["s3"], indirect=True)
def test_a_storage_in_trouble_is_503_and_its_address_stays_inside(service, url, object_store):
    object_store.refuse = lambda _: "503 Slow Down"
    answer = service.client.get(url)
    assert (answer.status_code, answer.json()["code"]) == (503, "unready")
    assert "Retry-After" in answer.headers
    assert object_store.url not in answer.text


def test_an_unfinished_job_has_no_checkpoint(service):
    job = service.submit()
    answer = service.client.get(f"/v1/jobs/{job['id']}/checkpoint")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_checkpoint")
    assert service.client.get(f"/v1/jobs/{job['id']}/artifacts").json() == {"data": []}


def test_an_unknown_artifact_is_404(service):
    answer = service.client.get("/v1/artifacts/art_none/content")
    assert (answer.status_code, answer.json()["code"]) == (404, "artifact_not_found")
