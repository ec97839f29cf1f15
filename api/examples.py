"""A value for any JSON Schema of the OpenAPI document, so that every operation shows what it takes and gives.

A schema's own `examples` come first, then its default; the rest is made up from its type.
"""

from typing import Any

from api.store.models import Json

FORMATS = {"date-time": "2026-12-01T12:00:00Z", "uri": "https://example.org", "binary": "…"}
DEEPEST = 12
LONGEST_LIST = 1


class Examples:
    """Makes examples for the schemas of one document."""

    def __init__(self, document: Json) -> None:
        self._schemas = document["components"]["schemas"]

    def of(self, schema: Json, depth: int = 0) -> Any:  # noqa: ANN401 - whatever the schema describes
        """A value that the schema allows."""
        for key in ("example", "const", "default"):
            if key in schema:
                return schema[key]
        for key in ("examples", "enum"):
            if schema.get(key):
                return schema[key][0]
        if depth > DEEPEST:
            return None
        if "$ref" in schema:
            return self.of(self._schemas[schema["$ref"].rpartition("/")[2]], depth + 1)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self.of(schema[key][0], depth + 1)
        return self._of_type(schema, depth)

    def _of_type(self, schema: Json, depth: int) -> Any:  # noqa: ANN401 - as in `of`
        kind = schema.get("type")
        if kind == "array":
            return [self.of(schema["items"], depth + 1)] * max(LONGEST_LIST, schema.get("minItems", 0))
        if kind == "string":
            return FORMATS.get(schema.get("format", ""), "text")
        if kind in ("integer", "number"):
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        simple = {"boolean": True, "null": None}
        return simple[kind] if kind in simple else self._object(schema, depth)

    def _object(self, schema: Json, depth: int) -> Json:
        made = {name: self.of(each, depth + 1) for name, each in schema.get("properties", {}).items()}
        values = schema.get("additionalProperties")
        if not made and isinstance(values, dict):
            name = self.of(schema.get("propertyNames", {"const": "name"}), depth + 1)
            return {name: self.of(values, depth + 1)}
        return made
