"""Signatures of the Standard Webhooks scheme, by which a receiver knows the sender and that nothing was changed."""

import base64
import hashlib
import hmac
from collections.abc import Iterable

from api.store.webhooks import SECRET_PREFIX


def headers(message_id: str, timestamp: int, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """The scheme's headers for one try; every secret signs, so that a receiver may know either while they change."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(signed, secret) for secret in secrets),
    }


def _signature(signed: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
