"""Deletes what nobody can ask for any more: superseded states, expired artifacts, what crashes left, old deliveries.

Every API process may do it; rounds are idempotent. What counts as garbage is decided in `store.garbage`.
"""

import logging

from api.resources import Resources
from api.store import outbox
from api.store.garbage import adopted_keys, drop_superseded_states, expire_files, referenced_keys

DAY_S = 86_400.0
logger = logging.getLogger(__name__)


def run_round(resources: Resources) -> None:
    """Let rows go first, then the files that no row names.

    A file younger than `orphans_after_s` stays: its row may be about to be written.
    """
    settings = resources.settings
    with resources.database.transaction() as session:
        drop_superseded_states(session)
        if settings.retention_days is not None:
            expire_files(session, retention_s=settings.retention_days * DAY_S)
        adopted = adopted_keys(session)
        outbox.forget_old(session)
    deleted = 0
    for keys in resources.storage.older_than(settings.orphans_after_s, prefix="jobs"):
        with resources.database.reading() as session:
            garbage = set(keys) - adopted - referenced_keys(session, keys)
        resources.storage.delete(garbage)
        deleted += len(garbage)
    if deleted:
        logger.info("Deleted %d stored file(s) that nobody can ask for any more.", deleted)
