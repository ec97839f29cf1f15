"""Bytes of a request → a document of plain JSON values, whatever was sent.

JSON and YAML can say more than a spec can mean, little text can stand for very much, and some text takes a parser
time that grows with the square of its length. What is refused here can neither exhaust what comes after nor be
unprintable in an answer. Knows nothing of specs.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Never

import yaml
from yaml.composer import Composer

DEEPEST = 32
MOST_VALUES = 1000  # a spec has some hundred, a sweep 500 points at most
LONGEST_YAML = 64 * 1024  # characters; a parser of YAML takes ten times as long as one of JSON
MOST_YAML_VALUES = 500  # and fifty times as long for each value
YAML_AT_ONCE = 100  # values; reading them takes the interpreter half a millisecond
PAUSE_S = 0.002  # in which others have it
LONGEST_NUMBER = 64  # characters; YAML 1.1 also reads 1:20:30, at a cost that is quadratic in the number of parts
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
        document = PARSERS[media_type](text.decode("utf-8-sig"))
        _check(document)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise Unparsable(f"Cannot parse the document: {error}") from error
    return document


def _parse_json(text: str) -> Any:  # noqa: ANN401 - whatever was sent
    # Parsing holds up every other request, so what can only be values is not parsed.
    _check_size(0, text.count(",") // COMMAS_OF_PROSE)
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Never:
    raise Unparsable(f"{name} is no number of JSON")


class _Loader(Composer, yaml.CSafeLoader):
    """Reads no more of a text than a document may have, and short numbers only.

    It gives way to others now and then: whoever floods the service with long documents then waits longer, and they do
    not.
    """

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)
        self._count = self._depth = 0

    def get_event(self) -> yaml.Event | None:
        """The next part of the text. An alias repeats a whole tree, and a merge of aliases copies it."""
        event = super().get_event()
        if isinstance(event, yaml.AliasEvent):
            raise Unparsable(f"aliases (*{event.anchor}) are not read; write the value again")
        if isinstance(event, yaml.CollectionEndEvent):
            self._depth -= 1
            return event
        self._depth += isinstance(event, yaml.CollectionStartEvent)
        self._count += 1
        _check_size(self._depth, 0)
        if self._count > MOST_YAML_VALUES:
            raise Unparsable(f"YAML of more than {MOST_YAML_VALUES} values is not read; send JSON")
        if self._count % YAML_AT_ONCE == 0:
            time.sleep(PAUSE_S)
        return event

    def read_int(self, node: yaml.ScalarNode) -> int:
        """A whole number."""
        _check_number(node)
        return self.construct_yaml_int(node)

    def read_float(self, node: yaml.ScalarNode) -> float:
        """Any other number."""
        _check_number(node)
        return self.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.read_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.read_float)


def _check_number(node: yaml.ScalarNode) -> None:
    if len(node.value) > LONGEST_NUMBER:
        raise Unparsable(f"a number has more than {LONGEST_NUMBER} characters")


def _parse_yaml(text: str) -> Any:  # noqa: ANN401 - whatever was sent
    if len(text) > LONGEST_YAML:
        raise Unparsable(f"YAML of more than {LONGEST_YAML} characters is not read; send JSON")
    if "%TAG" in text:  # each is compared with all before it
        raise Unparsable("directives (%TAG) are not read")
    return yaml.load(text, _Loader)  # noqa: S506 - a safe one


PARSERS: Mapping[str, Callable[[str], Any]] = MappingProxyType(
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
