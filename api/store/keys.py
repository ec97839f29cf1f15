"""Bearer keys: make one, recognise one, change and revoke it. Knows only hashes; a lost key cannot be shown again."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypedDict, Unpack

from sqlalchemy import or_, select, tuple_, update
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.errors import KeyNotFound
from api.store.models import ApiKey

PREFIX = "sntl"
ID_BYTES = 8
LARGEST_COUNT = 2**31 - 1  # of jobs
LARGEST_AMOUNT = 2**53 - 1  # of seconds and bytes: what every reader of JSON can tell apart
LONGEST_DAYS = 36_500  # of a key that ends; behind some thousand years, dates come to their end
SECRET_BYTES = 32  # 256 bits: guessing is hopeless, so a fast hash is enough


class Scope(StrEnum):
    """What a key may do: look, act, and manage the keys of its tenant."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


class Limits(TypedDict, total=False):
    """What a key may have; fields as in `ApiKey`."""

    max_queued_jobs: int | None
    max_running_jobs: int | None
    max_gpu_seconds: int | None
    max_stored_bytes: int | None
    rate_limit: str | None


def create_key(
    session: Session,
    tenant: str,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
    **limits: Unpack[Limits],
) -> tuple[ApiKey, str]:
    """Store a new key. The second value is the only copy of its plaintext, `sntl_<id>_<secret>`."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(
        id=secrets.token_hex(ID_BYTES),
        tenant=tenant,
        name=name,
        scopes=list(scopes),
        secret_hash=_hash(secret),
        expires_at=expires_at,
        **limits,
    )
    session.add(key)
    session.flush()
    return key, f"{PREFIX}_{key.id}_{secret}"


def list_keys(session: Session) -> Sequence[ApiKey]:
    """Every key that was ever made, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()


def page_of_keys(
    session: Session, tenant: str, *, limit: int | None = None, after: ApiKey | None = None
) -> Sequence[ApiKey]:
    """A tenant's keys, newest first; `after` is the last one of the page before."""
    query = select(ApiKey).where(ApiKey.tenant == tenant)
    if after is not None:
        query = query.where(tuple_(ApiKey.created_at, ApiKey.id) < tuple_(after.created_at, after.id))
    return session.scalars(query.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit)).all()


def get_key(session: Session, tenant: str, key_id: str) -> ApiKey:
    """One key.

    Raises:
        KeyNotFound: It does not exist, or is somebody else's: the caller cannot tell which.
    """
    key = session.scalar(select(ApiKey).where(ApiKey.id == key_id, ApiKey.tenant == tenant))
    if key is None:
        raise KeyNotFound(key_id)
    return key


def revoke_key(session: Session, key_id: str) -> str | None:
    """Make a key prove nothing from now on; its tenant, or None if there is no such key, or it was revoked before."""
    known = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    return session.scalar(known.values(revoked_at=db_now()).returning(ApiKey.tenant))


def lock_tenant(session: Session, tenant: str) -> None:
    """Let nobody else count what the tenant has until the transaction ends: its keys stand for the tenant.

    SQLite ignores it: there the writing transaction itself holds the lock.
    """
    session.execute(select(ApiKey.id).where(ApiKey.tenant == tenant).order_by(ApiKey.id).with_for_update())


def authenticate(session: Session, plaintext: str) -> ApiKey | None:
    """The key that the plaintext proves, if it is neither revoked nor expired."""
    prefix, _, rest = plaintext.partition("_")
    key_id, _, secret = rest.partition("_")
    valid = (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_now()))
    key = session.scalar(select(ApiKey).where(ApiKey.id == key_id, *valid)) if prefix == PREFIX else None
    # An unknown id takes the same comparison, so that timing does not tell which ids exist.
    matches = hmac.compare_digest(key.secret_hash if key else _hash(""), _hash(secret))
    return key if matches else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
