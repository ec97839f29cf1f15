"""How many requests may come in a time.

Those of a key are counted in Redis, for all replicas; without Redis each process counts for itself, so that nobody is
refused because Redis is away. Wrong keys of an address are counted in the process.
"""

import logging
import math
import time
from functools import lru_cache
from typing import NamedTuple

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from api.dispatch import TIMEOUT_S
from api.refusals import RateExceeded

AWAY_S = 5.0  # for so long, Redis is not asked again after it did not answer

logger = logging.getLogger(__name__)
_parsed = lru_cache(parse)


class Window(NamedTuple):
    """What is left of a rate.

    Attributes:
        rate: How many requests in how many seconds.
        remaining: How many may come now.
        reset_s: Seconds until the oldest that counts is forgotten.
        allowed: Whether the one that was just counted may pass.
    """

    rate: RateLimitItem
    remaining: int
    reset_s: int
    allowed: bool

    def headers(self, policy: str) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 has them."""
        return {
            "RateLimit-Policy": f'"{policy}";q={self.rate.amount};w={self.rate.get_expiry()}',
            "RateLimit": f'"{policy}";r={self.remaining};t={self.reset_s}',
        }


class Rates:
    """Counts requests for one process, or for all that share its Redis."""

    def __init__(self, redis_url: str) -> None:
        # One more try, because Redis may have been started anew since the pooled connection was made.
        retry = Retry(NoBackoff(), retries=1)
        self._pool = ConnectionPool.from_url(
            _for_client(redis_url), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=retry
        )
        self._shared = MovingWindowRateLimiter(RedisStorage("redis://", connection_pool=self._pool))
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._failures = FixedWindowRateLimiter(MemoryStorage())
        self._away_until = 0.0

    def count(self, rate: str, key_id: str) -> Window:
        """Count a request of a key, if it may pass."""
        if time.monotonic() >= self._away_until:
            try:
                return _counted(self._shared, _parsed(rate), key_id)
            except RedisError as error:
                self._away_until = time.monotonic() + AWAY_S
                logger.warning("Redis does not answer; for now this process counts requests alone: %s", error)
        return _counted(self._own, _parsed(rate), key_id)

    def check_address(self, rate: str, address: str) -> None:
        """See that an address has not sent too many wrong keys.

        Raises:
            RateExceeded: It has; what it sends now is not looked at.
        """
        if not self._failures.test(_parsed(rate), address):
            reset_s = _seconds_until(self._failures.get_window_stats(_parsed(rate), address).reset_time)
            raise RateExceeded("Too many wrong keys came from this address.", retry_after_s=reset_s)

    def count_failure(self, rate: str, address: str) -> None:
        """Count a wrong key."""
        self._failures.hit(_parsed(rate), address)

    def close(self) -> None:
        """Close every connection."""
        self._pool.disconnect()


def _counted(limiter: RateLimiter, rate: RateLimitItem, who: str) -> Window:
    allowed = limiter.hit(rate, who)
    left = limiter.get_window_stats(rate, who)
    return Window(rate, remaining=max(0, left.remaining), reset_s=_seconds_until(left.reset_time), allowed=allowed)


def _seconds_until(time_s: float) -> int:
    return max(1, math.ceil(time_s - time.time()))


def _for_client(celery_url: str) -> str:
    """As Redis' own client names a Unix socket and the number of a database."""
    return celery_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=", 1)
