"""Every route that there is: closed without a key, without its scope, and to whoever does not own what it names.

Walks over the application, so that a new route is covered without an edit; only a new kind of id has to be registered.
"""

import json
import re
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from api.auth import SAFE_METHODS, Scope
from api.store.keys import create_key
from tests.integration.api.conftest import running
from tests.integration.api.objects import FACTORIES

# What anybody may see. Nothing else may be open.
OPEN = {"/livez", "/readyz", "/metrics", "/docs", "/docs/{name}", "/openapi.json"}
PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")


@dataclass(frozen=True)
class Operation:
    """A method of a path, and what a request of it has to say to be understood."""

    method: str
    path: str
    query: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)
    body: object = None

    @property
    def ids(self):
        return [name for name in PARAMETER.findall(self.path) if name.endswith("_id")]

    @property
    def reads_what_ids_name(self):
        return self.method in SAFE_METHODS and self.ids and self.ids == PARAMETER.findall(self.path)

    def send(self, client: httpx.Client, ids=None) -> httpx.Response:
        values = ids or {}
        path = PARAMETER.sub(lambda found: values.get(found[1], "1"), self.path)
        content = None if self.body is None else json.dumps(self.body)
        return client.request(self.method, path, params=self.query, headers=self.headers, content=content)

    def __str__(self):
        return f"{self.method} {self.path}"


def operations(app):
    """Every method of every route, with the examples of its description."""
    paths = app.openapi()["paths"]
    for route in iter_route_contexts(app.routes):
        assert route.path is not None, f"{route} cannot be walked over: add what it serves as routes"
        assert route.methods, f"{route.path} takes any method: name them"
        for method in sorted(route.methods):
            described = paths.get(route.path, {}).get(method.lower(), {})
            yield Operation(method, route.path, *examples_of(described))


def examples_of(described):
    """Query, headers and body of a request that is as its operation wants it."""
    needed = [each for each in described.get("parameters", []) if each["required"]]
    query = {each["name"]: each["example"] for each in needed if each["in"] == "query"}
    headers = {each["name"]: str(each["example"]) for each in needed if each["in"] == "header"}
    content = described.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return query, headers, None
    return query, headers | {"Content-Type": "application/json"}, content["application/json"]["example"]


@pytest.fixture
def service(tmp_path):
    with running(tmp_path) as service:
        yield service


@pytest.fixture
def closed(service):
    return [each for each in operations(service.app) if each.path not in OPEN]


def client_with(service, tenant, *scopes):
    """A client whose key has just these scopes, even none."""
    with service.database.transaction() as session:
        _, key = create_key(session, tenant, tenant, scopes)
    return httpx.Client(base_url=service.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=20)


def test_what_is_open_is_there(service):
    assert {each.path for each in operations(service.app)} & OPEN == OPEN


def test_every_kind_of_id_is_known(closed):
    unknown = {name for each in closed for name in each.ids} - FACTORIES.keys()
    assert not unknown, f"Register in tests/integration/api/objects.py how to make what {sorted(unknown)} names."


def test_nothing_is_answered_without_a_key(service, closed):
    assert len(closed) > 15
    for headers in ({}, {"Authorization": "Bearer sntl_0_x"}, {"Authorization": "Basic eDp5"}):
        with httpx.Client(base_url=service.base_url, headers=headers) as nobody:
            for each in closed:
                answer = each.send(nobody)
                assert answer.status_code == 401, (str(each), headers)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert answer.headers["Content-Type"] == "application/problem+json"


def test_nothing_is_done_without_its_scope(service, closed):
    """What a scope opens is found by trying it alone."""
    with client_with(service, "nothing") as bare:
        for each in closed:
            assert each.send(bare).status_code == 403, str(each)
    opened = {str(each): set() for each in closed}
    for scope in Scope:
        with client_with(service, f"only-{scope}", scope) as holder:
            for each in closed:
                if each.send(holder).status_code != 403:
                    opened[str(each)].add(scope)
    with client_with(service, "everything", *Scope) as holder:
        for each in closed:
            # A key can be made only with scopes that its maker has, so one alone may not do.
            assert opened[str(each)] or each.send(holder).status_code != 403, f"no scope opens {each}"
    for each in closed:
        if each.method not in SAFE_METHODS:
            assert Scope.READ not in opened[str(each)], f"a key that may only read can {each}"


def test_what_is_somebody_else_s_does_not_exist(service, closed):
    made = {name: make(service) for name, make in FACTORIES.items()}
    with client_with(service, "stranger", *Scope) as stranger:
        for each in closed:
            if each.ids:
                answer = each.send(stranger, made)
                assert answer.status_code == 404, (str(each), answer.text)
    with client_with(service, "ann", *Scope) as owner:  # as if there were nothing to find, a walk would prove nothing
        found = {str(each): each.send(owner, made).status_code for each in closed if each.reads_what_ids_name}
    assert found
    assert set(found.values()) <= {200, 204, 206, 307, 409, 410}, found
