"""Deletes what nobody can ask for any more: files of old states, expired artifacts, abandoned uploads, old deliveries.

Every API process may do it; rounds are idempotent. What counts as garbage is decided in `store.garbage`.
"""

import logging
from collections.abc import Callable, Collection

from sqlalchemy.orm import Session

from api.resources import Resources
from api.store import outbox
from api.store.garbage import adopted_keys, drop_superseded_states, expire_files, kept_logs, referenced_keys
from api.store.uploads import drop_abandoned, uploaded_keys
from api.uploads.spool import spool_of

logger = logging.getLogger(__name__)


def run_round(resources: Resources) -> None:
    """Let rows go first, then the files that no row names.

    A file younger than `orphans_after_s` stays: its row may be about to be written.
    """
    settings = resources.settings
    retention_s = settings.retention_s
    with resources.database.transaction() as session:
        drop_superseded_states(session)
        drop_abandoned(session, idle_s=settings.uploads_abandoned_s)
        if retention_s is not None:
            expire_files(session, retention_s=retention_s)
        outbox.forget_old(session)

    def of_jobs(session: Session, keys: Collection[str]) -> set[str]:
        named = referenced_keys(session, keys) | kept_logs(session, keys, retention_s=retention_s)
        # Last: a state that its own job has just let go of was taken over before, if at all.
        return named | adopted_keys(session)

    spool_of(settings).sweep(idle_s=settings.orphans_after_s)
    deleted = _sweep(resources, "jobs", of_jobs)
    deleted += _sweep(resources, "uploads", uploaded_keys)
    if deleted:
        logger.info("Deleted %d stored file(s) that nobody can ask for any more.", deleted)


def _sweep(resources: Resources, prefix: str, named: Callable[[Session, Collection[str]], set[str]]) -> int:
    """Delete the old files under a prefix that are not `named`, or not whole; returns how many are of the former."""
    deleted, age_s = 0, resources.settings.orphans_after_s
    resources.storage.drop_unfinished(age_s, prefix=prefix)
    for keys in resources.storage.older_than(age_s, prefix=prefix):
        if resources.stopping.is_set():  # whoever stops the server waits for the round
            break
        with resources.database.reading() as session:
            garbage = set(keys) - named(session, keys)
        resources.storage.delete(garbage)
        deleted += len(garbage)
    return deleted
