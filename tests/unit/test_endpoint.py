"""What cannot be an address, a key, an idempotency key or an id is told at once, and a key is never told."""

import pytest

from sentinel.client import AsyncSentinelClient, SentinelClient
from sentinel.endpoint import AddressInvalid, IdempotencyKeyInvalid, IdInvalid, KeyInvalid
from tests.scripted_service import JOB, reply

URL = "http://127.0.0.1:1"
CLIENTS = pytest.mark.parametrize("make", [SentinelClient, AsyncSentinelClient])


@pytest.mark.parametrize("blanks", ["\n", "\r\n", " "])
def test_blanks_around_an_address_and_a_key_do_not_count(server, blanks):
    server.script = [reply(JOB)]
    url = f"http://127.0.0.1:{server.server_port}"
    with SentinelClient(url + blanks, "sntl_a-b_C" + blanks) as client:
        assert client.get("job_1").id == "job_1"
    assert server.asked[0][2]["Authorization"] == "Bearer sntl_a-b_C"


@CLIENTS
@pytest.mark.parametrize("key", ["", "\n", "sntl_a\nb", "sntl_ü", "sntl_a b", '"sntl_a"'])
def test_a_key_that_cannot_be_one_is_refused_and_not_told(make, key):
    with pytest.raises(KeyInvalid) as refused:
        make(URL, key)
    assert "sntl_" not in str(refused.value)


@CLIENTS
@pytest.mark.parametrize(
    "url",
    ["", "foo", "127.0.0.1:8000", "localhost:8000", "ftp://h", "http://", "http://[::1", "http://xn--/", "http://a\nb"],
)
def test_an_address_that_cannot_be_one_is_refused(make, url):
    with pytest.raises(AddressInvalid):
        make(url, "sntl_key")


@pytest.mark.parametrize("key", ["", "two words", "a\nb", "kéy", "x" * 256])
@pytest.mark.parametrize("call", ["submit", "submit_sweep"])
def test_nothing_is_made_under_what_can_be_no_idempotency_key(server, client, call, key):
    with pytest.raises(IdempotencyKeyInvalid):
        getattr(client, call)({}, idempotency_key=key)
    assert not server.asked


@pytest.mark.parametrize("id_", ["", "../keys", "job_1/cancel", "job_1\n", "job 1", "job_1?wait=1", "jöb"])
@pytest.mark.parametrize(
    "call", ["get", "cancel", "logs", "wait", "get_sweep", "sweep_table", "get_key", "delete_upload", "test_webhook"]
)
def test_nothing_is_asked_of_what_can_be_no_id(server, client, call, id_):
    with pytest.raises(IdInvalid):
        getattr(client, call)(id_)
    assert not server.asked
