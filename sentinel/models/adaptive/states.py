"""What state every attention group is in, told from signals by thresholds, and how that came about.

States describe. Only `apply_effects` touches gates, and every gate that it sets is in the timeline.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field

from sentinel.models.adaptive.adaptive_model import AdaptiveModel
from sentinel.models.adaptive.signals import Signals
from sentinel.result import State

# What a state does to a gate, where its effect is asked for.
FACTORS: Mapping[State, float] = MappingProxyType(
    {"active": 1.0, "overloaded": 0.5, "misaligned": 0.7, "withdrawn": 0.0}
)
# Gates that differ by less are the same.
TOLERANCE = 1e-6


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Thresholds(_Value):
    """Where states begin; the first that applies of withdrawn, overloaded and misaligned is the group's.

    Relative values are multiples of the mean of the layer's groups.
    """

    closed: float = Field(0.01, ge=0, le=1, description="Withdrawn: a gate no higher than this.")
    idle: float = Field(
        0.05, ge=0, description="Withdrawn: relative utilisation and relative importance both below this."
    )
    overload: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Overloaded: utilisation this far on the way from a fair share, 1 / groups, to all.",
    )
    pull: float = Field(2.0, ge=0, description="Misaligned: relative gradient norm above this …")
    use: float = Field(0.5, ge=0, description="… and relative importance below this.")
    recovery: int = Field(2, ge=1, description="Measurements in a row without a reason, after which a group is active.")


class Transition(_Value):
    """One entry of the timeline.

    Attributes:
        step: When, in whatever the caller counts.
        layer: Index of the layer.
        group: Attention group of the layer, as the measurement names it.
        before: The state that ends.
        after: The state that begins; the same where only the gate was set.
        reason: In a sentence, with the numbers.
    """

    step: int
    layer: int
    group: int
    before: State
    after: State
    reason: str


class Standing(_Value):
    """Where one group stands.

    Attributes:
        state: Its state.
        calm: Measurements in a row that gave no reason for a state other than active.
        gate: What its gate was before an effect was applied; None while none is.
        closed: Whether an effect closed it, which was open before.
        rest: Measurements since then.
        removed: Whether it was cut out of the model.
    """

    state: State = "active"
    calm: int = 0
    gate: float | None = None
    closed: bool = False
    rest: int = 0
    removed: bool = False


class History(_Value):
    """The states of all groups and how they came about; saved and resumed as JSON.

    Attributes:
        thresholds: Where states begin.
        standings: Layer → group → where it stands; groups not seen yet are absent, and active.
        timeline: Every change so far, in order; it only ever grows.
    """

    thresholds: Thresholds = Thresholds()
    standings: dict[int, dict[int, Standing]] = {}
    timeline: tuple[Transition, ...] = ()

    def standing(self, layer: int, group: int) -> Standing:
        """Where one group stands."""
        return self.standings.get(layer, {}).get(group, Standing())

    def observed(self, step: int, signals: Signals, *, groups: Mapping[int, Sequence[int]] | None = None) -> "History":
        """The history after one more measurement.

        A reason moves a group at once; back to active it takes `recovery` measurements without one. A group that an
        effect has closed shows nothing, and is active again, to be tried, after as many measurements. One that was
        cut out of the model is withdrawn; if it comes back, it starts anew.

        Args:
            step: When, in whatever the caller counts.
            signals: What was measured.
            groups: Layer → names of its groups, in their order; None where they are named by their place in the layer.
                Of a model that is cut between measurements every layer is named, with groups left or not.
        """
        groups = {layer: range(len(row)) for layer, row in signals.gate.items()} if groups is None else groups
        standings: dict[int, dict[int, Standing]] = {}
        changes = []
        for layer, names in groups.items():
            standings[layer] = {}
            for group in sorted({*names, *self.standings.get(layer, {})}):
                old = self.standing(layer, group)
                if group in names:
                    judged = _judged(signals, layer, names.index(group), self.thresholds)
                    new, reason = _moved(old, judged, self.thresholds.recovery)
                else:
                    new, reason = Standing(state="withdrawn", removed=True), "It is not in the model any more."
                standings[layer][group] = new
                if new.state != old.state:
                    changes.append(
                        Transition(
                            step=step, layer=layer, group=group, before=old.state, after=new.state, reason=reason
                        )
                    )
        return self.model_copy(
            update={"standings": {**self.standings, **standings}, "timeline": (*self.timeline, *changes)}
        )


def apply_effects(adaptive: AdaptiveModel, history: History, *, step: int) -> History:
    """Set the gate of every group that is not active to its own times the state's factor; give back what recovered.

    Factors do not pile up: they count from the gate as it was before the first of them.

    Raises:
        ValueError: The gates cannot have the values, as hard ones cannot, or do not cover a group. None was set.
    """
    wanted = {
        (layer, group): _own(adaptive, layer, group, old) * FACTORS[old.state]
        for layer, row in history.standings.items()
        for group, old in row.items()
        if not old.removed
    }
    for (layer, group), value in wanted.items():
        adaptive.check("attention", layer, {group: value})
    standings = {layer: dict(row) for layer, row in history.standings.items()}
    entries = []
    for (layer, group), value in wanted.items():
        old, own = standings[layer][group], _own(adaptive, layer, group, standings[layer][group])
        standings[layer][group] = old.model_copy(
            update={
                "gate": None if old.state == "active" else own,
                "closed": old.state == "withdrawn" and own > history.thresholds.closed,
            }
        )
        before, after = _set(adaptive, layer, group, value)
        # Gates of a short data type do not become what they are set to.
        if abs(after - before) > TOLERANCE:
            factor = FACTORS[old.state]
            reason = f"The gate was set from {before:.3g} to {after:.3g}, {factor:g} of its own {own:.3g}."
            entries.append(
                Transition(step=step, layer=layer, group=group, before=old.state, after=old.state, reason=reason)
            )
    return history.model_copy(update={"standings": standings, "timeline": (*history.timeline, *entries)})


def _own(adaptive: AdaptiveModel, layer: int, group: int, standing: Standing) -> float:
    """The gate as it was before the first effect."""
    return adaptive.gate("attention", layer, group) if standing.gate is None else standing.gate


def _set(adaptive: AdaptiveModel, layer: int, group: int, value: float) -> tuple[float, float]:
    """What the gate was, and what it is now."""
    before = adaptive.gate("attention", layer, group)
    if abs(value - before) > TOLERANCE:
        adaptive.set("attention", layer, {group: value})
    return before, adaptive.gate("attention", layer, group)


def _moved(old: Standing, judged: tuple[State, str], recovery: int) -> tuple[Standing, str]:
    state, reason = judged
    if old.removed:
        return Standing(state=state), reason or "It has come back."
    if old.closed:
        rest = old.rest + 1
        if rest < recovery:
            return old.model_copy(update={"rest": rest}), ""
        return Standing(gate=old.gate), f"Closed for {rest} measurements; it is tried again."
    if state != "active":
        return old.model_copy(update={"state": state, "calm": 0, "rest": 0}), reason
    calm = old.calm + 1
    if old.state == "active" or calm < recovery:
        return old.model_copy(update={"calm": calm}), ""
    return old.model_copy(update={"state": "active", "calm": calm}), f"{calm} measurements in a row gave no reason."


def _judged(signals: Signals, layer: int, group: int, thresholds: Thresholds) -> tuple[State, str]:
    gate = signals.gate[layer][group]
    groups = len(signals.gate[layer])
    share = signals.utilisation[layer][group]
    importance = _relative(signals.importance[layer], group)
    pull = _relative(signals.gradient_norm[layer], group)
    if gate <= thresholds.closed:
        return "withdrawn", f"Its gate is {gate:.3g}, at most {thresholds.closed:g}."
    if share * groups < thresholds.idle and importance < thresholds.idle:
        return "withdrawn", (
            f"Utilisation {share * groups:.3g} and importance {importance:.3g} of the layer's mean are below "
            f"{thresholds.idle:g}."
        )
    if groups > 1 and (share * groups - 1) / (groups - 1) > thresholds.overload:
        return "overloaded", f"It puts out {share:.0%} of the energy of {groups} groups."
    if pull > thresholds.pull and importance < thresholds.use:
        return "misaligned", (
            f"Its gradient is {pull:.3g} of the layer's mean, above {thresholds.pull:g}, its importance "
            f"{importance:.3g} of it, below {thresholds.use:g}."
        )
    return "active", ""


def _relative(row: tuple[float, ...], group: int) -> float:
    mean = sum(row) / len(row)
    return row[group] / mean if mean > 0 else 1.0
