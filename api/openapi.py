"""The OpenAPI document: FastAPI's own, with what it cannot be told.

Problems have their own media type, and their codes; what is refused before any route is reached can happen at each;
every answer carries some headers, and has an example.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import MEDIA_TYPE, codes_of, example_of, responses
from api.examples import Examples
from api.headers import described
from api.store.models import Json

METHODS = frozenset({"get", "put", "post", "delete", "head", "patch", "options"})
EVERYWHERE = (
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_URI_TOO_LONG,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
)
WITH_BODY = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
EVERY_RESPONSE = {
    "X-Request-Id": "Of this request; quote it when you report a problem.",
    "X-Trace-Id": "Of the trace that this request belongs to.",
}
RETRYABLE = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def build(app: FastAPI) -> dict[str, Any]:
    """Describe the application's routes."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        webhooks=app.webhooks.routes,
        separate_input_output_schemas=app.separate_input_output_schemas,
    )
    examples = Examples(document)
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _without_null(parameter["schema"])
        _add_refusals(operation)
        for status, response in operation["responses"].items():
            _describe(HTTPStatus(int(status)), response)
        _add_examples(operation, examples)
    return document


def _operations(document: Json) -> Iterator[Json]:
    for path in document["paths"].values():
        yield from (operation for method, operation in path.items() if method in METHODS)


def _without_null(schema: Json) -> Json:
    """A parameter can be left out, but no query and no header can say null."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {key: value for key, value in schema.items() if key != "anyOf"} | kinds[0]


def _add_refusals(operation: Json) -> None:
    """What happens at every route, before it is reached."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for status in (*EVERYWHERE, *(WITH_BODY if "requestBody" in operation else ())):
        (documented,) = responses(status).values()
        response = {"description": documented["description"], "content": {MEDIA_TYPE: schema}}
        operation["responses"].setdefault(str(int(status)), response)


def _describe(status: HTTPStatus, response: Json) -> None:
    headers = dict(EVERY_RESPONSE)
    if status in RETRYABLE:
        headers["Retry-After"] = "Seconds after which to try again."
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "`Bearer`: how to say who asks."
    response["headers"] = described(headers) | response.get("headers", {})
    if status >= HTTPStatus.BAD_REQUEST:
        (content,) = response["content"].values()
        codes = codes_of(status)
        if codes:
            content = content | {"examples": {code: {"value": example_of(code)} for code in codes}}
            response["description"] += ": " + " or ".join(f"`{code}`" for code in codes)
        response["content"] = {MEDIA_TYPE: content}


def _add_examples(operation: Json, examples: Examples) -> None:
    """One for every parameter and every body that has none of its own."""
    for parameter in operation.get("parameters", ()):
        if parameter["required"] and parameter.keys().isdisjoint({"example", "examples"}):
            parameter["example"] = examples.of(parameter["schema"])
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    for body in (*bodies, *operation["responses"].values()):
        for content in body.get("content", {}).values():
            if content.keys().isdisjoint({"example", "examples"}) and "schema" in content:
                content["example"] = examples.of(content["schema"])
