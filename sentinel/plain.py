"""What a spec, a sweep or any other document may hold: text, finite numbers, true, false, null, lists and mappings.

That is what JSON has. YAML and Python can say more, which is refused alike wherever a document comes from. Knows
nothing of specs, nor how much a document may hold.
"""

import math
from collections.abc import Sequence
from typing import Any, Never, TypeVar

import yaml

T = TypeVar("T")
LONGEST_SHOWN = 64  # characters of a name
LARGEST_INTEGER = 2**63 - 1


class NotPlain(ValueError):
    """A value that no JSON text has."""


class PlainLoader(yaml.CSafeLoader):
    """Reads of YAML what a document may hold, and names what it may not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - yaml's signature
        """A mapping, in which `<<` may stand several times."""
        names = [name for name, _ in node.value if isinstance(name, yaml.ScalarNode) and name.value != "<<"]
        unique([(name.value, name) for name in names])
        return super().construct_mapping(node, deep)

    def read_int(self, node: yaml.ScalarNode) -> int:
        """A whole number."""
        _refuse_base_60(node)
        return self.construct_yaml_int(node)

    def read_float(self, node: yaml.ScalarNode) -> float:
        """Any other number."""
        _refuse_base_60(node)
        return self.construct_yaml_float(node)

    def refuse_time(self, node: yaml.ScalarNode) -> Never:
        """A date or a time, which no JSON text has."""
        raise NotPlain(f"{node.value} is a date; write it in quotes")


PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.read_int)
PlainLoader.add_constructor("tag:yaml.org,2002:float", PlainLoader.read_float)
PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", PlainLoader.refuse_time)


def _refuse_base_60(node: yaml.ScalarNode) -> None:
    """YAML 1.1 reads 1:20:30 to base 60, which nobody means, at a cost that is quadratic in the number of parts."""
    if ":" in node.value:
        raise NotPlain(f"{node.value} is a number to base 60; write it to base 10, or in quotes")


def unique(pairs: Sequence[tuple[str, T]]) -> dict[str, T]:
    """The mapping of so many fields. YAML and JSON let a name stand twice; readers differ in which one they take.

    Raises:
        NotPlain: Two have one name.
    """
    document: dict[str, T] = {}
    for name, value in pairs:
        if name in document:
            raise NotPlain(f"the field {name[:LONGEST_SHOWN]!r} stands twice in one mapping")
        document[name] = value
    return document


def read_yaml(text: str) -> Any:  # noqa: ANN401 - whatever it says
    """The document that a YAML or JSON text says.

    Raises:
        NotPlain: It is no YAML, or says what a document may not hold.
    """
    try:
        document = yaml.load(text, PlainLoader)  # noqa: S506 - a safe one
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise NotPlain(str(error)) from error
    check(document)
    return document


def check(document: Any) -> None:  # noqa: ANN401 - any part of a document
    """Look at every value.

    Raises:
        NotPlain: It has a value that no JSON text has, or holds itself.
    """
    try:
        for part in parts(document):
            check(part)
    except RecursionError as error:
        raise NotPlain("it is nested without end") from error


def parts(value: Any) -> Sequence[Any]:  # noqa: ANN401 - any part of a document
    """What a list or a mapping holds.

    Raises:
        NotPlain: It is no value that a JSON text has.
    """
    match value:
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise NotPlain("the names of fields must be text")
            return [*value.keys(), *value.values()]
        case list() | tuple():
            return value
        case _:
            _check_scalar(value)
            return ()


def _check_scalar(value: object) -> None:
    match value:
        case str():
            if "\0" in value or not _is_encodable(value):
                raise NotPlain(f"{value!r} has a character that no text may have")
        case bool() | None:
            pass
        case int():
            if abs(value) > LARGEST_INTEGER:
                raise NotPlain("a whole number has more than 64 bits")
        case float():
            if not math.isfinite(value):
                raise NotPlain(f"{value} is no number of JSON")
        case _:
            raise NotPlain(f"{value!r} is neither text, number, list nor mapping; write it in quotes")


def _is_encodable(text: str) -> bool:
    """Half of a surrogate pair has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
