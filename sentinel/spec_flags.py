"""Every field of a spec as a command-line flag: `--prune.target.sparsity 0.3`.

Knows how flags become a document and which flags there are; validation stays in `sentinel.spec`.
"""

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sentinel.errors import SpecInvalid
from sentinel.plain import NotPlain, read_yaml
from sentinel.spec import Spec, load_document, parse_spec
from sentinel.spec_fields import set_field


def spec_from_arguments(arguments: Sequence[str]) -> Spec:
    """A valid spec from an optional file and flags that override it.

    Raises:
        SpecInvalid: A flag lacks a value, or the document is not a valid spec.
    """
    return parse_spec(document_from_arguments(arguments))


def document_from_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """What an optional file and flags that override it say, valid or not.

    Args:
        arguments: `[FILE] [--field value | --field=value]…`; values are YAML, so `null` and lists work.

    Raises:
        SpecInvalid: The file or a value cannot be read, or a flag lacks one.
    """
    rest = list(arguments)
    document = load_document(Path(rest.pop(0))) if rest and not rest[0].startswith("--") else {}
    set_flags(document, rest)
    return document


def set_flags(document: dict[str, Any], arguments: Sequence[str]) -> None:
    """Put what flags say into a document.

    Raises:
        SpecInvalid: A flag lacks a value, or has one that cannot be read, or something is none.
    """
    for path, value in _pairs(arguments):
        set_field(document, path, value)


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--"):
            raise SpecInvalid(f"{argument!r} is neither a flag nor the first argument, which may be a spec file.")
        name, equals, value = argument.removeprefix("--").partition("=")
        text = value if equals else next(remaining, None)
        if text is None:
            raise SpecInvalid(f"The flag --{name} lacks a value.")
        yield name, _value(name, text)


def _value(name: str, text: str) -> Any:  # noqa: ANN401 - whatever it says
    try:
        return read_yaml(text)
    except NotPlain as error:
        raise SpecInvalid(f"The value of --{name}, {text!r}, cannot be read: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One field of the spec.

    Attributes:
        name: `--prune.strategy`.
        default: As YAML; empty where the field is required.
        description: What the field means.
        choices: The values that it takes, where they can be counted.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...]


def flags() -> list[Flag]:
    """All fields of the spec, depth first, in the order of the document."""
    found: dict[str, Flag] = {}
    for flag in _flags_of(Spec, ""):
        found.setdefault(flag.name, flag)
    return list(found.values())


def _flags_of(section: type[BaseModel], prefix: str) -> Iterator[Flag]:
    for name, field in section.model_fields.items():
        yield Flag(
            name=f"--{prefix}{name}",
            default=_default(field),
            description=field.description or "",
            choices=tuple(_choices(field.annotation)),
        )
        for nested in _sections(field.annotation):
            yield from _flags_of(nested, f"{prefix}{name}.")


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for member in typing.get_args(annotation):
            yield from _sections(member)


def _choices(annotation: object) -> Iterator[str]:
    """What a flag can be followed by, as YAML."""
    if annotation is bool:
        yield from ("true", "false")
    elif typing.get_origin(annotation) is Literal:
        yield from map(str, typing.get_args(annotation))
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _choices(member)
    elif annotation is types.NoneType:
        yield "null"


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default_factory is not None:
        return ""
    return yaml.safe_dump(field.default, default_flow_style=True).removesuffix("\n...\n").strip()
