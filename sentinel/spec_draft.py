"""Writes a first spec from three answers, with a comment for every choice. Torch-free, and asks nobody itself."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from sentinel.errors import Fault, SentinelError
from sentinel.prune_spec import Target
from sentinel.spec import model_section

_TARGET = re.compile(r"(?:(\w+)=)?([\d.]+(?:e\d+)?)(%|ms|[KMB])?")
SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9}
# What a number with a unit means where no name says it, and with which names the units go.
MEANT = {None: "sparsity", "%": "sparsity", "ms": "latency_ms", "K": "parameters", "M": "parameters", "B": "parameters"}
UNITS_OF = {"sparsity": ("%",), "latency_ms": ("ms",), **dict.fromkeys(("parameters", "kv_bytes", "flops"), SUFFIXES)}


class Purpose(StrEnum):
    """What a smaller model is wanted for."""

    SIZE = "size"
    SPEED = "speed"
    CACHE = "cache"


class TargetUnclear(SentinelError):
    """A target cannot be understood."""

    code = "target_unclear"
    fault = Fault.USER
    next_step = "Say 30%, 60M (parameters that may be left), 12ms, or kv_bytes=4096 or flops=2e9 (per token)."


class PurposeUnclear(SentinelError):
    """A purpose cannot be understood."""

    code = "purpose_unclear"
    fault = Fault.USER
    next_step = f"Say {', '.join(Purpose)}."


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The answers.

    Attributes:
        model: A hub id, a folder, or `builtin/…`.
        target: The spec's `prune.target`.
        purpose: What matters most.
        heal: Whether to train after each cut.
    """

    model: str
    target: dict[str, float]
    purpose: Purpose
    heal: bool

    def text(self, file: str) -> str:
        """The spec as commented YAML, for a file of this name."""
        return "\n".join(
            [
                f"# Run it here:         sentinel run {file}",
                f"# or on a service:     sentinel submit {file} --watch",
                "# Every other field:   sentinel fields",
                "",
                f"model: {_flow(model_section(self.model))}",
                "",
                *self._data(),
                "",
                *self._prune(),
                "",
                *self._heal(),
                "",
            ]
        )

    def _data(self) -> list[str]:
        if self.model.startswith("builtin/"):
            return ["# The stories that the built-in models were trained on.", "data: {source: builtin}"]
        return [
            "# Better: text like that which the model is for. {source: path, train: my.txt} takes a file of one's own.",
            "data: {source: hub, id: Salesforce/wikitext, config: wikitext-2-raw-v1, sequence_length: 512}",
        ]

    def _prune(self) -> list[str]:
        units, why_units = UNITS[self.purpose]
        allocation, why_allocation = ALLOCATIONS[self.purpose]
        cycles, why_cycles = (3, "cut in three steps, and healed after each") if self.heal else (1, "cut at once")
        (kind,) = self.target
        return [
            "prune:",
            f"  # {TARGETS[kind]}",
            f"  target: {_flow(self.target)}",
            f"  # {why_units}",
            f"  units: {_flow(units)}",
            f"  # {why_allocation}",
            f"  allocation: {allocation}",
            f"  cycles: {cycles}  # {why_cycles}",
            "  # In a hurry, or before long healing: search: null, compensation: least_squares",
        ]

    def _heal(self) -> list[str]:
        if not self.heal:
            return ["# No training: what a cut costs is only repaired in closed form.", "heal: null"]
        return [
            "# The cut model learns the dense one's predictions. More steps win back more, and take as much longer.",
            "heal: {loss: distill, steps: 200}",
        ]


UNITS = {
    Purpose.SIZE: (["attention", "mlp"], "Attention heads and MLP neurons: most parameters are in these."),
    Purpose.SPEED: (["attention", "mlp"], "Attention heads and MLP neurons: both take time for every token."),
    Purpose.CACHE: (["attention"], "Only attention heads have a key-value cache."),
}
ALLOCATIONS = {
    Purpose.SIZE: ("global", "Takes from each layer what it misses least."),
    Purpose.SPEED: ("uniform", "The same from every layer, so that a stock class, which servers run fast, often fits."),
    Purpose.CACHE: ("global", "Takes from each layer what it misses least."),
}
TARGETS = {
    "sparsity": "The share of heads, and of neurons where they are cut, that goes.",
    "parameters": "Parameters that may be left.",
    "latency_ms": "Milliseconds of a forward pass over one window that it may take on the device it runs on.",
    "kv_bytes": "Bytes of key-value cache per token that may be left.",
    "flops": "Floating-point operations per token that may be left.",
}


def parse_target(text: str) -> dict[str, float]:
    """`prune.target` from how people say it: `30%`, `0.3`, `60M`, `12ms`, `kv_bytes=4096`, `flops=2B`.

    Raises:
        TargetUnclear: It is none of these, or has a unit that does not go with its name.
    """
    found = _TARGET.fullmatch(text.replace(" ", ""))
    try:
        target = _target(*found.groups()) if found else {}
        Target.model_validate(target)
    except (ValueError, OverflowError) as wrong:  # Pydantic's too
        raise TargetUnclear(f"{text!r} is no target.") from wrong
    return target


def _target(name: str | None, digits: str, unit: str | None) -> dict[str, float]:
    kind = name or MEANT[unit]
    if unit is not None and unit not in UNITS_OF.get(kind, (unit,)):
        raise TargetUnclear(f"{kind} is not said in {unit}.")
    number = float(digits)
    if unit == "%":
        number /= 100
    elif unit in SUFFIXES:
        number = float(round(number * SUFFIXES[unit]))
    return {kind: int(number) if number.is_integer() else number}


def parse_purpose(text: str) -> Purpose:
    """What matters most.

    Raises:
        PurposeUnclear: It is none of the purposes.
    """
    try:
        return Purpose(text.strip().lower())
    except ValueError as wrong:
        raise PurposeUnclear(f"{text!r} is no purpose.") from wrong


def likely_purpose(target: dict[str, float]) -> Purpose:
    """What a target speaks for."""
    return {"latency_ms": Purpose.SPEED, "kv_bytes": Purpose.CACHE}.get(next(iter(target)), Purpose.SIZE)


def _flow(value: Any) -> str:  # noqa: ANN401 - any part of a document
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).removesuffix("\n")
