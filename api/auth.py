"""Who is asking, whether they may, and how often: bearer keys, deny by default.

`Caller` is a dependency of the whole `/v1` router, so no route can forget it.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.refusals import KeyRequired, RateExceeded, ScopeMissing
from api.resources import Resources, Shared
from api.store.audit import Actor
from api.store.keys import Scope, authenticate
from api.store.models import ApiKey


@dataclass(frozen=True, kw_only=True)
class Principal(Actor):
    """The owner of the key that a request carries."""

    scopes: frozenset[str]

    def check_scope(self, needed: Scope) -> None:
        """See that the key has a scope.

        Raises:
            ScopeMissing: It has not.
        """
        if needed not in self.scopes:
            raise ScopeMissing(f"The key has no scope {needed.value!r}.")


SAFE_METHODS = frozenset({"GET", "HEAD"})
_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="An API key, `sntl_<id>_<secret>`.")


def _authorise(
    request: Request,
    resources: Shared,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """Reading needs `read`, everything else `submit`, unless the route says what it `needs`.

    Raises:
        KeyRequired: No key, or one that proves nothing.
        RateExceeded: The key, or its sender, has asked too often.
        ScopeMissing: The key lacks the scope.
    """
    if credentials is None:
        raise KeyRequired("The request carries no API key.")
    address = request.client.host if request.client else None
    key = _known_key(resources, credentials.credentials, address or "")
    _check_rate(request, resources, key)
    caller = Principal(
        tenant=key.tenant,
        key_id=key.id,
        request_id=request.state.request_id,
        client=address,
        scopes=frozenset(key.scopes),
    )
    if not any(isinstance(said.dependency, _Needs) for said in request.scope["route"].dependencies):
        caller.check_scope(Scope.READ if request.method in SAFE_METHODS else Scope.SUBMIT)
    return caller


def _known_key(resources: Resources, plaintext: str, address: str) -> ApiKey:
    rate = resources.settings.wrong_key_limit
    resources.rates.check_address(rate, address)
    with resources.database.reading() as session:
        key = authenticate(session, plaintext)
    if key is None:
        resources.rates.count_failure(rate, address)
        raise KeyRequired("The API key is unknown, expired or revoked.")
    return key


def _check_rate(request: Request, resources: Resources, key: ApiKey) -> None:
    rate = key.rate_limit or resources.settings.rate_limit
    if rate is None:
        return
    window = resources.rates.count(rate, key.id)
    request.state.headers.update(window.headers("key"))
    if not window.allowed:
        raise RateExceeded(f"The key may send {rate} requests.", retry_after_s=window.reset_s)


Caller = Annotated[Principal, Depends(_authorise)]
authorised = Depends(_authorise)


@dataclass(frozen=True)
class _Needs:
    scope: Scope

    def __call__(self, caller: Caller) -> None:
        caller.check_scope(self.scope)


def needs(scope: Scope) -> Any:  # noqa: ANN401 - FastAPI's own `Depends` says no more
    """A dependency of a route or a router: this scope is needed instead of the method's.

    Where `_authorise` does not see it, as in `include_router(…, dependencies=[…])`, both are needed.
    """
    return Depends(_Needs(scope))
