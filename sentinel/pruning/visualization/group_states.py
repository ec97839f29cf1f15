"""What became of every group, cycle by cycle, told from the records of the cycles. Knows no drawing."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from sentinel.manifest import Unit
from sentinel.result import CycleRecord

# A group of each unit, as people call it.
GROUP_NAMES: Mapping[Unit, str] = {"attention": "attention group", "mlp": "MLP neuron"}


class State(StrEnum):
    """Of a group after a cycle; in the order in which legends name them."""

    KEPT = "kept"
    GROWN = "grown in this cycle"
    CUT = "cut in this cycle"
    TRIED = "grown, and taken out again"
    GONE = "gone"


class GroupState(NamedTuple):
    """One group after one cycle; its number is that of the dense model, or beyond its count."""

    cycle: int
    layer: int
    group: int
    state: State


def states_over_cycles(cycles: Iterable[CycleRecord], dense_counts: Sequence[int], unit: Unit) -> list[GroupState]:
    """Every group of the dense model, and those that were grown beside them from their cycle on, after each cycle."""
    layers = [dict.fromkeys(range(count), State.KEPT) for count in dense_counts]
    states = []
    for record in cycles:
        for layer, groups in enumerate(layers):
            _settle(groups)
            groups.update(_changes(record, unit, layer))
            states += [GroupState(record.cycle, layer, group, state) for group, state in sorted(groups.items())]
    return states


def _settle(groups: dict[int, State]) -> None:
    """What was new in the cycle before is so no more."""
    for group, state in groups.items():
        groups[group] = State.KEPT if state in (State.KEPT, State.GROWN) else State.GONE


def _changes(record: CycleRecord, unit: Unit, layer: int) -> dict[int, State]:
    """What a cycle cut in a layer, and then exchanged."""
    cut = dict.fromkeys(record.removed.get(unit, {}).get(layer, ()), State.CUT)
    if record.growth is None:
        return cut
    came, went = (set(side.get(unit, {}).get(layer, ())) for side in (record.growth.grown, record.growth.removed))
    if not record.growth.accepted:
        return cut | dict.fromkeys(came, State.TRIED)
    back = dict.fromkeys(came & went, State.TRIED)
    return cut | back | dict.fromkeys(went - came, State.CUT) | dict.fromkeys(came - went, State.GROWN)


def states_at_end(kept: Sequence[Iterable[int]], dense_counts: Sequence[int]) -> list[GroupState]:
    """Every group of the dense model, and what there is beside them, kept or gone; as of cycle 0."""
    return [
        GroupState(0, layer, group, State.KEPT if group in groups else State.GONE)
        for layer, (groups, count) in enumerate(zip(map(set, kept), dense_counts, strict=True))
        for group in sorted({*range(count), *groups})
    ]


def touched_units(cycles: Iterable[CycleRecord], units: Iterable[Unit]) -> list[Unit]:
    """Those of which a cycle has cut or grown something."""
    records = list(cycles)
    return [unit for unit in units if any(_touches(record, unit) for record in records)]


def _touches(record: CycleRecord, unit: Unit) -> bool:
    changes: list[Mapping[int, list[int]]] = [record.removed.get(unit, {})]
    if record.growth:
        changes.append(record.growth.grown.get(unit, {}))
    return any(groups for layers in changes for groups in layers.values())
