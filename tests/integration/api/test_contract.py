"""The running service keeps what its OpenAPI document says, whatever it is asked: no answer that is not described.

Requests are made from the document itself, so that every operation is covered. Here they are the same every time;
`make fuzz` makes more, others every time, as many for each operation as FUZZ_EXAMPLES says.
"""

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS

from api.main import create_app
from api.settings import Settings
from api.store.keys import Scope
from tests.integration.api.conftest import running
from tests.integration.api.objects import FACTORIES

# A spec has thousands of values to try one by one: of those of an operation, so many, and then every so manieth.
FIRST, STRIDE = 30, 40
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
# What is wrong with a request can be more than a schema can say: a cursor that nobody gave, two targets at once.
BEYOND_SCHEMAS = ["positive_data_acceptance"]
# Those that the tool counts by itself, and a path with its query that is too long.
REFUSALS = ["400", "401", "403", "404", "405", "406", "409", "414", "415", "422", "428", "429", "5xx"]
ANSWER_WITH_VERDICTS = {"/v1/jobs/validate", "/v1/sweeps/validate"}  # they say with a 200 what is wrong


def described():
    """The document as the service of the environment would give it."""
    with tempfile.TemporaryDirectory() as home:
        document = create_app(Settings(home=Path(home))).openapi()
    config = {
        # Stand-ins for ids that there are; ids that there are not are for `test_routes` and `test_hostile_requests`.
        "parameters": {f"path.{name}": name for name in FACTORIES},
        "checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}},
        "phases": {"fuzzing": {"enabled": EXAMPLES > 0}},
        "generation": {"deterministic": EXAMPLES == 0, "allow-extra-parameters": False},
    }
    return schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(config))


schema = described()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running(tmp_path_factory.mktemp("contract")) as service:
        yield service


@pytest.fixture(scope="module")
def ids(service):
    return {name: make(service) for name, make in FACTORIES.items()}


@pytest.fixture(scope="module")
def session(service):
    with requests.Session() as session, service.client_of("ann", *Scope) as everything:
        session.headers["Authorization"] = everything.headers["Authorization"]
        yield session


@pytest.fixture(scope="module")
def sent():
    """How many requests there were for each operation."""
    return Counter()


@schema.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=max(1, EXAMPLES))
def test_every_answer_is_as_described(case, service, ids, session, sent):
    number = sent[case.operation.label] = sent[case.operation.label] + 1
    if not EXAMPLES and number > FIRST and number % STRIDE:
        return
    case.path_parameters = {name: ids.get(value, value) for name, value in (case.path_parameters or {}).items()}
    skipped = [*BEYOND_SCHEMAS, *(["negative_data_rejection"] if case.path in ANSWER_WITH_VERDICTS else [])]
    case.call_and_validate(
        base_url=service.base_url,
        session=session,
        excluded_checks=CHECKS.get_by_names(skipped),
    )
