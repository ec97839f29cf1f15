"""Bearer keys: make one, recognise one. Knows only hashes; a lost key cannot be shown again."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from api.store.database import db_now
from api.store.models import ApiKey

PREFIX = "sntl"
ID_BYTES = 8
SECRET_BYTES = 32  # 256 bits: guessing is hopeless, so a fast hash is enough


def create_key(
    session: Session, tenant: str, name: str, scopes: Sequence[str], expires_at: datetime | None = None
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
    )
    session.add(key)
    session.flush()
    return key, f"{PREFIX}_{key.id}_{secret}"


def list_keys(session: Session) -> Sequence[ApiKey]:
    """Every key that was ever made, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()


def revoke_key(session: Session, key_id: str) -> bool:
    """Make a key prove nothing from now on; false if there is no such key, or it was revoked before."""
    known = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    return session.scalar(known.values(revoked_at=db_now()).returning(ApiKey.id)) is not None


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
