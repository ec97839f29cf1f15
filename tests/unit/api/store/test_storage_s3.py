"""What only S3 does: uploads in parts, URLs that it signs, and trouble on the way. What serves here is not AWS."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from api.store.errors import StorageUnavailable
from api.store.storage import PART_BYTES, Storage
from tests.object_store import KEYS

LARGE = bytes(PART_BYTES) + b"tail"


@pytest.fixture
def storage(bucket):
    return Storage(bucket.uri)


@pytest.fixture
def put(tmp_path, storage):
    def put(content):
        (tmp_path / "file").write_bytes(content)
        return storage.put_file(tmp_path / "file", "jobs/1")

    return put


def test_a_large_file_goes_in_parts_and_a_small_one_at_once(put, object_store):
    put(LARGE)
    assert len([r for r in object_store.requests if "partNumber" in r.query]) == 2
    object_store.requests.clear()
    put(b"small")
    assert [r.query for r in object_store.requests if r.method in ("PUT", "POST")] == [""]


@pytest.mark.parametrize("part", ["uploads", "partNumber=2"])
def test_an_upload_that_fails_leaves_nothing(put, bucket, object_store, part):
    object_store.refuse = lambda asked: "503 Slow Down" if part in asked.query and asked.method != "DELETE" else None
    with pytest.raises(StorageUnavailable, match="503 Service Unavailable"):
        put(LARGE)
    object_store.refuse = lambda _: None
    assert bucket.stored() == bucket.unfinished_uploads() == []


def test_a_store_that_stumbles_is_asked_again(put, object_store):
    left = [1, 1]
    object_store.refuse = lambda request: "500 Oops" if request.method == "PUT" and left and left.pop() else None
    put(b"content")
    assert len([r for r in object_store.requests if r.method == "PUT"]) == 3


ASKED = {
    "head": lambda storage: storage.head("jobs/1"),
    "read": lambda storage: list(storage.iterate("jobs/1", length=1)),
    "list": lambda storage: list(storage.older_than(0, prefix="jobs")),
    "delete": lambda storage: storage.delete(["jobs/1"]),
    "check": lambda storage: storage.check(),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(
    ("status", "what_next"), [("403 Forbidden", "AWS_SECRET_ACCESS_KEY"), ("400 Bad Request", "can be reached")]
)
def test_a_store_that_refuses_is_said_to_and_what_to_do(storage, object_store, asked, status, what_next):
    object_store.refuse = lambda _: status
    with pytest.raises(StorageUnavailable, match=status.split()[0]) as refused:
        ASKED[asked](storage)
    assert what_next in refused.value.instance_next_step
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in refused.value.message


def test_a_store_that_is_not_there_is_told_from_a_file_that_is_not(monkeypatch, bucket):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:1"):
        Storage(bucket.uri).head("jobs/1")


@pytest.mark.parametrize("asked", ["read", "list", "check"])
def test_a_missing_bucket_is_named_and_to_be_made(bucket, asked):
    with pytest.raises(StorageUnavailable, match="NoSuchBucket") as missing:
        ASKED[asked](Storage("s3://not-there"))
    assert missing.value.instance_next_step.startswith("Create the bucket")


def test_plain_http_must_be_allowed(bucket, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StorageUnavailable) as refused:
        Storage(bucket.uri).check()
    assert "AWS_ALLOW_HTTP=true" in refused.value.instance_next_step


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found"])
def test_who_has_no_keys_and_no_role_is_told_to_set_keys(bucket, monkeypatch, object_store, status):
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", object_store.url)
    for name in KEYS:
        monkeypatch.delenv(name)
    object_store.refuse = lambda _: status
    with pytest.raises(StorageUnavailable) as refused:
        Storage(bucket.uri).check()
    assert refused.value.instance_next_step.startswith("Set AWS_ACCESS_KEY_ID")


def test_a_signed_url_reads_the_object_as_aws_s_own_client_would_sign_it(storage, put, bucket):
    stored = put(b"content")
    url = storage.presign(stored.key, valid_s=60)
    assert httpx.get(url).content == b"content"
    assert httpx.get(url, headers={"Range": "bytes=1-3"}).content == b"ont"
    signed = parse_qs(urlsplit(url).query)
    assert signed["X-Amz-Expires"] == ["60"]
    assert signed["X-Amz-Signature"] == [signature_of(url, time=signed["X-Amz-Date"][0])]


def signature_of(url, *, time):
    """What AWS's own client signs: the server does not check it."""
    parts = urlsplit(url)
    query, _, _ = parts.query.partition("&X-Amz-Signature")
    request = AWSRequest("GET", parts._replace(query=query).geturl(), headers={"host": parts.netloc})
    request.context["timestamp"] = time
    signer = S3SigV4QueryAuth(Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]), "s3", "us-east-1")
    return signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
