"""Who is asking, and whether they may: bearer keys, deny by default.

`Caller` is a dependency of the whole `/v1` router, so no route can forget it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.refusals import KeyRequired, ScopeMissing
from api.resources import Resources, Shared
from api.store.keys import authenticate
from api.store.models import ApiKey


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    SUBMIT = "submit"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The owner of the key that a request carries."""

    tenant: str


SAFE_METHODS = frozenset({"GET", "HEAD"})
_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="An API key, `sntl_<id>_<secret>`.")


def _authorise(
    request: Request,
    resources: Shared,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """Reading needs `read`, everything else `submit`.

    Raises:
        KeyRequired: No key, or one that proves nothing.
        ScopeMissing: The key lacks the scope.
    """
    if credentials is None:
        raise KeyRequired("The request carries no API key.")
    key = _known_key(resources, credentials.credentials)
    needed = Scope.READ if request.method in SAFE_METHODS else Scope.SUBMIT
    if needed not in key.scopes:
        raise ScopeMissing(f"The key {key.name!r} has no {needed!r} scope.")
    return Principal(tenant=key.tenant)


def _known_key(resources: Resources, plaintext: str) -> ApiKey:
    with resources.database.reading() as session:
        key = authenticate(session, plaintext)
    if key is None:
        raise KeyRequired("The API key is unknown, expired or revoked.")
    return key


Caller = Annotated[Principal, Depends(_authorise)]
authorised = Depends(_authorise)
