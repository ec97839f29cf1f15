"""What was measured, as tables."""

from io import StringIO

import pytest
from rich.console import Console

from sentinel.display import stress_tables
from sentinel.stress_result import (
    AlternationArm,
    AlternationRecord,
    CurvePoint,
    DamageArm,
    DamageRecord,
    DomainRecord,
    Leg,
    ProbeRecord,
    ProbeScore,
    StressResult,
    won_back,
)


def domain(stderr):
    return DomainRecord(
        domain="data",
        text="stories",
        sequence_length=8,
        windows=2,
        dense_loss=1,
        pruned_loss=1.5,
        increase=0.5,
        increase_stderr=stderr,
        kl_to_dense=0.25,
        agreement=0.75,
    )


def arm(*losses, recovery):
    legs = [
        Leg(round=1, domain=domain, losses={"data": loss, "code": 3})
        for domain, loss in zip(("code", "data"), losses, strict=True)
    ]
    return AlternationArm(start={"data": 1, "code": 9}, legs=legs, forgetting=[losses[0] - 1], recovery=[recovery])


def damaged(*losses, recovery):
    curve = [CurvePoint(step=5 * number, loss=loss) for number, loss in enumerate(losses)]
    return DamageArm(removed={0: [1]}, before=1, curve=curve, recovery=recovery)


RESULT = StressResult(
    domains=[domain(0.125)],
    probes=[
        ProbeRecord(
            probe="recall",
            sequences=2,
            answers=2,
            dense=ProbeScore(loss=1, control_loss=3, gain=2, gain_stderr=0.5, accuracy=0.5),
            pruned=ProbeScore(loss=1, control_loss=1, gain=0, gain_stderr=None, accuracy=0),
        )
    ],
    alternation=AlternationRecord(
        other="code", steps=4, dense=arm(2, 1.5, recovery=0.5), pruned=arm(1, 0.9, recovery=None)
    ),
    damage=DamageRecord(
        share=0.25, strategy="taylor", dense=damaged(3, 2, recovery=0.5), pruned=damaged(3, recovery=None)
    ),
)


def test_a_share_is_told_only_of_what_was_lost():
    assert won_back(before=1, hurt=3, after=2) == 0.5
    assert won_back(before=1, hurt=3, after=0.5) == 1.25
    assert won_back(before=1, hurt=3, after=4) == -0.5
    assert won_back(before=1, hurt=1.005, after=0.5) is None
    assert won_back(before=1, hurt=0.9, after=0.5) is None


def test_every_measurement_has_a_table():
    rows = [table.rows for table in RESULT.tables()]
    assert rows == [
        [["data", "1.0000", "1.5000", "+0.5000 ± 0.1250", "0.2500", "75.0%"]],
        [["recall", "+2.0000 ± 0.5000", "+0.0000", "50.0%", "0.0%"]],
        [
            ["nothing yet", "1.0000", "1.0000", "9.0000", "9.0000"],
            ["code, round 1", "2.0000", "1.0000", "3.0000", "3.0000"],
            ["data, round 1", "1.5000", "0.9000", "3.0000", "3.0000"],
        ],
        [["1", "+1.0000", "+0.0000", "50.0%", "little was lost"]],
        [
            ["before", "1.0000", "1.0000"],
            ["step 0", "3.0000", "3.0000"],
            ["step 5", "2.0000", ""],
            ["won back", "50.0%", "little was lost"],
        ],
    ]
    assert all(len(row) == len(table.header) for table in RESULT.tables() for row in table.rows)


def test_what_was_not_asked_for_has_none():
    few = RESULT.model_copy(update={"probes": [], "alternation": None, "damage": None})
    assert [table.title for table in few.tables()] == ["Loss by domain, nats per token"]


@pytest.mark.parametrize("title", [table.title for table in RESULT.tables()])
def test_the_tables_are_printed(title):
    text = StringIO()
    Console(file=text, width=200).print(*stress_tables(RESULT))
    assert " ".join(title.split()) in " ".join(text.getvalue().split())


def test_json_reads_back():
    assert StressResult.model_validate_json(RESULT.model_dump_json()) == RESULT
