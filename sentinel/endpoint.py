"""What is needed to ask a service anything: its address, a key, paths on it, and what a request is known by.

Checked before anything is sent: what cannot be right is not worth trying again, and an error of the HTTP library would
quote the key.
"""

import re

import httpx

from sentinel.errors import Fault, SentinelError

# Ids and keys are of these letters, and so are the names in paths.
_WORD = re.compile(r"[A-Za-z0-9_-]+")
# What the service takes, and a header can carry.
IDEMPOTENCY_KEY = r"^[!-~]{1,255}$"


class AddressInvalid(SentinelError):
    """No service can be at this address."""

    code = "address_invalid"
    fault = Fault.USER
    next_step = "Give it like http://127.0.0.1:8000."


class KeyInvalid(SentinelError):
    """No key looks like this one, which is not told."""

    code = "key_invalid"
    fault = Fault.USER
    next_step = "Copy the whole key again, `sntl_…`, without quotes or anything behind it."


class IdempotencyKeyInvalid(SentinelError):
    """No request can be known by this."""

    code = "idempotency_key_invalid"
    fault = Fault.USER
    next_step = "Take 1 to 255 visible ASCII characters, without blanks; a UUID does."


class IdInvalid(SentinelError):
    """Nothing can have this id."""

    code = "id_invalid"
    fault = Fault.USER
    next_step = "Give the id as the service says it; those of jobs begin with `job_`."


def address(text: str) -> httpx.URL:
    """Where a service is. Blanks around it do not count.

    Raises:
        AddressInvalid: No service can be there.
    """
    try:
        url = httpx.URL(text.strip())
        found = url.scheme in {"http", "https"} and url.host
    except (httpx.InvalidURL, ValueError) as error:  # ValueError: a host that IDNA forbids
        raise AddressInvalid(f"The address of the service is none: {error}") from error
    if not found:
        raise AddressInvalid("The address of the service must begin with http:// or https:// and name a host.")
    return url


def bearer(api_key: str) -> dict[str, str]:
    """The header that shows a key. Blanks around the key do not count, as files and secrets end in a line break.

    Raises:
        KeyInvalid: It is empty, or has characters that no key has.
    """
    key = api_key.strip()
    if not _WORD.fullmatch(key):
        raise KeyInvalid("The API key has characters that no key has." if key else "The API key is empty.")
    return {"Authorization": f"Bearer {key}"}


def known_by(idempotency_key: str) -> dict[str, str]:
    """The header that tells a request which is sent again from a new one.

    Raises:
        IdempotencyKeyInvalid: It is empty, too long, or has characters that a header has not.
    """
    if not re.fullmatch(IDEMPOTENCY_KEY, idempotency_key):
        raise IdempotencyKeyInvalid(f"{idempotency_key[:40]!r} is no idempotency key.")
    return {"Idempotency-Key": idempotency_key}


def path_of(*names: str | int) -> str:
    """The path of what the service has under these names, of which some are ids.

    Raises:
        IdInvalid: One of them would lead elsewhere.
    """
    for name in map(str, names):
        if not _WORD.fullmatch(name):
            raise IdInvalid(f"{name!r} is no id.")
    return "/".join(("/v1", *map(str, names)))
