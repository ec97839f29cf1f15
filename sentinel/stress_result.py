"""What `evaluate.stress` found out, of the dense and the pruned model side by side, and the same as rows of tables.

Knows numbers and words; knows no model. What each means is told in docs/stress.md.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from sentinel.stress_spec import IN_DOMAIN

# A rise of a loss by a smaller share of it is noise, and so is the share of it that is won back.
LEAST_RISE = 0.01


class Rows(NamedTuple):
    """A table for people, its first column names."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer service may have measured more


class DomainRecord(_Value):
    """Both models on one text; losses in nats per token.

    Attributes:
        domain: `data` for the spec's own text, else the name of the domain.
        text: What was evaluated on.
        sequence_length: Tokens per window.
        windows: How many.
        dense_loss: The dense model's.
        pruned_loss: The pruned model's.
        increase: pruned_loss − dense_loss.
        increase_stderr: Its standard error over the windows, which both models read; None of a single one.
        kl_to_dense: KL(dense ‖ pruned), nats per token.
        agreement: Share of the predictions in which both models rank the same next token first.
    """

    domain: str
    text: str
    sequence_length: int
    windows: int
    dense_loss: float
    pruned_loss: float
    increase: float
    increase_stderr: float | None
    kl_to_dense: float
    agreement: float


class ProbeScore(_Value):
    """One model on one probe.

    Attributes:
        loss: Nats per answer, where it could be taken from before; the mean of the sequences.
        control_loss: Of the same tokens, where it could not.
        gain: control_loss − loss.
        gain_stderr: Its standard error over the sequences; None of a single one.
        accuracy: Share of the answers that are ranked first.
    """

    loss: float
    control_loss: float
    gain: float
    gain_stderr: float | None
    accuracy: float


class ProbeRecord(_Value):
    """Both models on one probe.

    Attributes:
        probe: `repetition`, `copying` or `recall`.
        sequences: How many.
        answers: Tokens to be foretold in all of them.
    """

    probe: str
    sequences: int
    answers: int
    dense: ProbeScore
    pruned: ProbeScore


class Leg(_Value):
    """One training in an alternation.

    Attributes:
        domain: Which was learnt.
        losses: Both texts' evaluation loss behind it, by name.
    """

    round: int
    domain: str
    losses: dict[str, float]


class AlternationArm(_Value):
    """One model that learns another domain and the own text in turn.

    Attributes:
        start: Both texts' evaluation loss before it, by name.
        legs: In their order.
        forgetting: Per round, the rise of the own text's loss while the other was learnt.
        recovery: Per round, the share of that rise that training on the own text won back; None where it hardly rose.
    """

    start: dict[str, float]
    legs: list[Leg]
    forgetting: list[float]
    recovery: list[float | None]


class AlternationRecord(_Value):
    """Both models, trained on the same windows in the same order."""

    other: str
    steps: int
    dense: AlternationArm
    pruned: AlternationArm


class CurvePoint(_Value):
    """Evaluation loss behind so many steps of healing."""

    step: int
    loss: float


class DamageArm(_Value):
    """One model that loses its most important attention groups at once.

    Attributes:
        removed: Layer → groups, by their index in this model's layer.
        before: Evaluation loss on the own text.
        curve: The same right after the damage, at step 0, and on the way of the healing.
        recovery: Share of the rise that healing won back; None where it hardly rose.
    """

    removed: dict[int, list[int]]
    before: float
    curve: list[CurvePoint]
    recovery: float | None


class DamageRecord(_Value):
    """Both models, each cut by its own importance and healed on the same windows in the same order."""

    share: float
    strategy: str
    dense: DamageArm
    pruned: DamageArm


class StressResult(_Value):
    """Everything that `evaluate.stress` measured; None for what was not asked for."""

    domains: list[DomainRecord]
    probes: list[ProbeRecord]
    alternation: AlternationRecord | None
    damage: DamageRecord | None

    def tables(self) -> list[Rows]:
        """The same for people, a table per measurement."""
        tables = [_domains(self.domains)]
        if self.probes:
            tables.append(_probes(self.probes))
        if self.alternation:
            tables += [_alternation(self.alternation), _forgetting(self.alternation)]
        if self.damage:
            tables.append(_damage(self.damage))
        return tables


def won_back(*, before: float, hurt: float, after: float) -> float | None:
    """(hurt − after) / (hurt − before): 1 where a loss is back at what it was; None where it had hardly risen."""
    return (hurt - after) / (hurt - before) if hurt > before * (1 + LEAST_RISE) else None


def _domains(records: Sequence[DomainRecord]) -> Rows:
    rows = [
        [
            record.domain,
            f"{record.dense_loss:.4f}",
            f"{record.pruned_loss:.4f}",
            _signed(record.increase, record.increase_stderr),
            f"{record.kl_to_dense:.4f}",
            f"{record.agreement:.1%}",
        ]
        for record in records
    ]
    header = ["text", "dense", "pruned", "increase", "KL(dense ‖ pruned)", "same first choice"]
    return Rows("Loss by domain, nats per token", header, rows)


def _probes(records: Sequence[ProbeRecord]) -> Rows:
    rows = [
        [
            record.probe,
            *(_signed(score.gain, score.gain_stderr) for score in (record.dense, record.pruned)),
            *(f"{score.accuracy:.1%}" for score in (record.dense, record.pruned)),
        ]
        for record in records
    ]
    header = ["probe", "gain, dense", "gain, pruned", "right, dense", "right, pruned"]
    return Rows("Probes: what an earlier occurrence gains, nats per answer", header, rows)


def _alternation(record: AlternationRecord) -> Rows:
    domains, arms = (IN_DOMAIN, record.other), (record.dense, record.pruned)
    header = ["trained on", *(f"{domain}, {arm}" for domain in domains for arm in ("dense", "pruned"))]
    rows = [["nothing yet", *(f"{arm.start[domain]:.4f}" for domain in domains for arm in arms)]]
    for legs in zip(*(arm.legs for arm in arms), strict=True):
        name = f"{legs[0].domain}, round {legs[0].round}"
        rows.append([name, *(f"{leg.losses[domain]:.4f}" for domain in domains for leg in legs)])
    return Rows(f"Two domains learnt in turn, {record.steps} steps each: loss, nats per token", header, rows)


def _forgetting(record: AlternationRecord) -> Rows:
    arms = (record.dense, record.pruned)
    rows = [
        [
            str(number),
            *(f"{arm.forgetting[number - 1]:+.4f}" for arm in arms),
            *(_share(arm.recovery[number - 1]) for arm in arms),
        ]
        for number in range(1, len(record.dense.forgetting) + 1)
    ]
    header = ["round", "forgetting, dense", "forgetting, pruned", "recovery, dense", "recovery, pruned"]
    return Rows(f"Forgetting of {IN_DOMAIN} while {record.other} is learnt, nats per token", header, rows)


def _damage(record: DamageRecord) -> Rows:
    arms = (record.dense, record.pruned)
    rows = [["before", *(f"{arm.before:.4f}" for arm in arms)]]
    for points in zip_longest(*(arm.curve for arm in arms)):
        step = next(point.step for point in points if point)
        rows.append([f"step {step}", *(f"{point.loss:.4f}" if point else "" for point in points)])
    rows.append(["won back", *(_share(arm.recovery) for arm in arms)])
    title = f"Sudden loss of the most important {record.share:.0%} of attention groups: loss, nats per token"
    return Rows(title, ["healing", "dense", "pruned"], rows)


def _signed(value: float, stderr: float | None) -> str:
    return f"{value:+.4f}" if stderr is None else f"{value:+.4f} ± {stderr:.4f}"


def _share(value: float | None) -> str:
    return "little was lost" if value is None else f"{value:.1%}"
