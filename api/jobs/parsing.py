"""Bytes of a request → a document of plain JSON values, whatever was sent.

JSON and YAML can say more than a spec can mean, little text can stand for very much, and some text takes a parser
time that grows with the square of its length. What is refused here can neither exhaust what comes after nor be
unprintable in an answer. `sentinel.plain` says what a document may hold, this how much. Knows nothing of specs.
"""

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Never

import yaml

from sentinel.plain import PlainLoader, parts, unique

DEEPEST = 32
MOST_VALUES = 1000  # a spec has some hundred, a sweep 500 points at most
LONGEST_YAML = 64 * 1024  # characters; a parser of YAML takes ten times as long as one of JSON
MOST_YAML_VALUES = 500  # and fifty times as long for each value
LONGEST_NUMBER = 32  # characters, of YAML; no float of 64 bits needs as many
LONG_NUMBER = re.compile(r"[-+]?(0b[01_]++|0x[0-9a-fA-F_]++|[0-9_.:]++([eE][-+]?[0-9]++)?)")
TOO_LONG = f"a number has more than {LONGEST_NUMBER} characters; if it is text, write it in quotes"
COMMAS_OF_PROSE = 10  # for each value that may be there: a body of 1 MiB with more commas is no text


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
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=unique)


def _refuse_constant(name: str) -> Never:
    raise Unparsable(f"{name} is no number of JSON")


class _Loader(PlainLoader):
    """Reads no more of a text than a document may have, and short numbers only.

    libyaml's composer calls the first three methods for every value, and the first two of the base class do nothing.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = self._depth = 0

    def descend_resolver(self, _parent: yaml.Node | None, _index: object) -> None:
        """A value begins."""
        self._depth += 1
        self._count += 1
        _check_size(self._depth, 0)
        if self._count > MOST_YAML_VALUES:
            raise Unparsable(f"YAML of more than {MOST_YAML_VALUES} values is not read; send JSON")

    def ascend_resolver(self) -> None:
        """A value ends."""
        self._depth -= 1

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> Any:  # noqa: ANN401 - a bool, or two
        """The tag of a value that has none; of what is long, without YAML's own patterns, which take a while each."""
        if value is None or len(value) <= LONGEST_NUMBER:
            return super().resolve(kind, value, implicit)
        is_plain, _ = implicit
        if is_plain and LONG_NUMBER.fullmatch(value):
            raise Unparsable(TOO_LONG)
        return self.DEFAULT_SCALAR_TAG

    def get_single_node(self) -> yaml.Node | None:
        """The document as nodes, each of them in one place."""
        root = super().get_single_node()
        _refuse_aliases(root)
        return root

    def read_int(self, node: yaml.ScalarNode) -> int:
        """A whole number."""
        _check_length(node)
        return super().read_int(node)

    def read_float(self, node: yaml.ScalarNode) -> float:
        """Any other number."""
        _check_length(node)
        return super().read_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.read_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.read_float)


def _check_length(node: yaml.ScalarNode) -> None:
    if len(node.value) > LONGEST_NUMBER:  # a tag says that it is a number
        raise Unparsable(TOO_LONG)


def _refuse_aliases(root: yaml.Node | None) -> None:
    """An alias repeats a whole tree, and a merge of aliases copies it."""
    pending, seen = [root] if root is not None else [], set()
    while pending:
        node = pending.pop()
        if node in seen:
            raise Unparsable(f"aliases are not read, as of line {node.start_mark.line + 1}; write the value again")
        seen.add(node)
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            pending += [part for pair in node.value for part in pair]


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
        children = parts(value)
        count += len(children)
        _check_size(depth, count)  # before any more are put down
        pending.extend((each, depth + 1) for each in children)


def _check_size(depth: int, count: int) -> None:
    if depth > DEEPEST:
        raise Unparsable(f"it is nested more than {DEEPEST} levels deep")
    if count > MOST_VALUES:
        raise Unparsable(f"it has more than {MOST_VALUES} values")
