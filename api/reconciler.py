"""Keeps promises when messages get lost: expires leases, fails what missed its deadline, rings for jobs left queued.

Every API process may do it; rounds are idempotent. What a round changes is decided in `store.reconciliation`.
"""

from api import dispatch
from api.resources import Resources
from api.store.placement import forget_silent
from api.store.reconciliation import reconcile

WAKES_PER_ROUND = 16  # how many idle workers one round can bring to work


def run_round(resources: Resources) -> None:
    """Change what has to change, then wake workers for what waits; nothing is sent before the commit."""
    with resources.database.transaction() as session:
        done = reconcile(session, limit=WAKES_PER_ROUND)
        forget_silent(session, resources.settings.lease_s)
    resources.metrics.lease_expiries.inc(done.expired)
    resources.metrics.missed_deadlines.inc(done.missed)
    if done.waiting:
        dispatch.wake_again(resources.settings.redis_url, times=len(done.waiting))
