"""Which address and key a command takes."""

import pytest

from sentinel.access import KeyMissing, find

OWN = "http://10.0.0.7:8000"


@pytest.fixture(autouse=True)
def _written_down(tmp_path, monkeypatch):
    (tmp_path / "url").write_text(OWN + "\n")
    (tmp_path / "api_key").write_text("sntl_own\n")
    monkeypatch.setenv("SENTINEL_HOME", str(tmp_path))


def test_what_is_written_down_goes_together():
    assert find(None, None) == (OWN, "sntl_own")
    assert find(None, "sntl_given") == (OWN, "sntl_given")


@pytest.mark.parametrize("url", [OWN, OWN + "\n", "http://localhost:9000", "http://127.0.0.1:1", "http://[::1]:8000"])
def test_the_key_that_is_written_down_goes_to_its_service_and_to_this_host(url):
    assert find(url, None) == (url.strip(), "sntl_own")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "http://10.0.0.8:8000",
        "http://localhost.example.com",
        "http://a@[",
        "http://127.0.0.1@example.com",
        "foo",
    ],
)
def test_the_key_that_is_written_down_goes_nowhere_else(url):
    with pytest.raises(KeyMissing, match="no API key for"):
        find(url, None)
    assert find(url, "sntl_given") == (url, "sntl_given")
