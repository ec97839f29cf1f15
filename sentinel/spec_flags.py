"""Every field of a spec as a command-line flag: `--prune.target.sparsity 0.3`.

Knows how flags become a document and which flags there are; validation stays in `sentinel.spec`.
"""

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sentinel.errors import SpecInvalid
from sentinel.spec import Spec, load_document, model_section, parse_spec

# The type and the settings of a command that takes a spec: typer passes on whatever it does not know.
SpecArguments = Annotated[
    list[str] | None,
    typer.Argument(
        help="A spec file and/or fields as flags, e.g. --prune.strategy entropy; `sentinel fields` lists them.",
        metavar="[SPEC] [--FIELD VALUE]...",
    ),
]
SPEC_ARGUMENTS_SETTINGS = {"ignore_unknown_options": True}


def spec_from_arguments(arguments: Sequence[str]) -> Spec:
    """Build a spec from an optional file and flags that override it.

    Args:
        arguments: `[FILE] [--field value | --field=value]…`; values are YAML, so `null` and lists work.

    Raises:
        SpecInvalid: A flag lacks a value, or the document is not a valid spec.
    """
    rest = list(arguments)
    document = load_document(Path(rest.pop(0))) if rest and not rest[0].startswith("--") else {}
    for path, value in _pairs(rest):
        _set_field(document, path.split("."), value)
    return parse_spec(document)


def _pairs(arguments: list[str]) -> Iterator[tuple[str, Any]]:
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--"):
            raise SpecInvalid(f"{argument!r} is neither a flag nor the first argument, which may be a spec file.")
        name, equals, value = argument.removeprefix("--").partition("=")
        text = value if equals else next(remaining, None)
        if text is None:
            raise SpecInvalid(f"The flag --{name} lacks a value.")
        yield name, yaml.safe_load(text)


def _set_field(document: dict[str, Any], path: list[str], value: object) -> None:
    *parents, last = path
    here = document
    for key in parents:
        section = here.get(key)
        if isinstance(section, str) and key == "model":
            section = model_section(section)
        here[key] = dict(section) if isinstance(section, dict) else {}
        here = here[key]
    here[last] = value


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One field of the spec.

    Attributes:
        name: `--prune.strategy`.
        default: As YAML; empty where the field is required.
        description: What the field means.
    """

    name: str
    default: str
    description: str


def flags() -> list[Flag]:
    """All fields of the spec, depth first, in the order of the document."""
    found: dict[str, Flag] = {}
    for flag in _flags_of(Spec, ""):
        found.setdefault(flag.name, flag)
    return list(found.values())


def _flags_of(section: type[BaseModel], prefix: str) -> Iterator[Flag]:
    for name, field in section.model_fields.items():
        yield Flag(name=f"--{prefix}{name}", default=_default(field), description=field.description or "")
        for nested in _sections(field.annotation):
            yield from _flags_of(nested, f"{prefix}{name}.")


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for member in typing.get_args(annotation):
            yield from _sections(member)


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default_factory is not None:
        return ""
    return yaml.safe_dump(field.default, default_flow_style=True).removesuffix("\n...\n").strip()
