"""Bytes of a request → a document of plain JSON values, whatever was sent.

JSON and YAML can say more than a spec can mean, and little text can stand for very much. What is refused here can
neither exhaust what comes after nor be unprintable in an answer. Knows nothing of specs.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Never

import yaml

DEEPEST = 32
MOST_VALUES = 10_000  # a spec has some hundred
COMMAS_OF_PROSE = 10  # for each value that may be there: a body of 1 MiB with more commas is no text
LARGEST_INTEGER = 2**63 - 1


class Unparsable(ValueError):
    """The text is no document that a spec could be made of."""


def parse(media_type: str, text: bytes) -> Any:  # noqa: ANN401 - whatever was sent
    """The document.

    Raises:
        Unparsable: With what is wrong with it.
    """
    try:
        document = PARSERS[media_type](text)
        _check(document)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise Unparsable(f"Cannot parse the document: {error}") from error
    return document


def _parse_json(text: bytes) -> Any:  # noqa: ANN401 - whatever was sent
    # Parsing holds up every other request, so what can only be values is not parsed.
    _check_size(0, text.count(b",") // COMMAS_OF_PROSE)
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Never:
    raise Unparsable(f"{name} is no number of JSON")


def _parse_yaml(text: bytes) -> Any:  # noqa: ANN401 - whatever was sent
    """Looked through event by event first: an alias repeats whole trees, and a merge of aliases copies them."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, yaml.CSafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise Unparsable(f"aliases (*{event.anchor}) are not read; write the value again")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        _check_size(depth, count)
    return yaml.load(text, yaml.CSafeLoader)


PARSERS: Mapping[str, Callable[[bytes], Any]] = MappingProxyType(
    {"application/json": _parse_json, "application/yaml": _parse_yaml}
)


def _check(document: Any) -> None:  # noqa: ANN401 - whatever was parsed
    """Without recursion, which has a limit of its own.

    Raises:
        Unparsable: It is too deep or too large, or has a value that no JSON text has.
    """
    pending = [(document, 1)]
    count = 1
    while pending:
        value, depth = pending.pop()
        children = _children(value)
        count += len(children)
        _check_size(depth, count)  # before any more are put down
        pending.extend((each, depth + 1) for each in children)


def _children(value: Any) -> Sequence[Any]:  # noqa: ANN401 - whatever was parsed
    match value:
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise Unparsable("the names of fields must be text")
            return [*value.keys(), *value.values()]
        case list():
            return value
        case _:
            _check_scalar(value)
            return ()


def _check_size(depth: int, count: int) -> None:
    if depth > DEEPEST:
        raise Unparsable(f"it is nested more than {DEEPEST} levels deep")
    if count > MOST_VALUES:
        raise Unparsable(f"it has more than {MOST_VALUES} values")


def _check_scalar(value: object) -> None:
    match value:
        case str():
            if "\0" in value or not _is_encodable(value):
                raise Unparsable(f"{value!r} has a character that no text may have")
        case bool() | None:
            pass
        case int():
            if abs(value) > LARGEST_INTEGER:
                raise Unparsable("a whole number has more than 64 bits")
        case float():
            if not math.isfinite(value):
                raise Unparsable(f"{value} is no number of JSON")
        case _:
            raise Unparsable(f"{value!r} is neither text, number, list nor mapping; write it in quotes")


def _is_encodable(text: str) -> bool:
    """Half of a surrogate pair has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
