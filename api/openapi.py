"""The OpenAPI document: FastAPI's own, with the one thing it cannot be told: problems have their own media type."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import MEDIA_TYPE


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
    for path in document["paths"].values():
        for operation in path.values():
            _name_media_type(operation["responses"])
    return document


def _name_media_type(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
