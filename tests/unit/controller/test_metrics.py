import csv
import io

from sentinel.controller.memory import Memory
from sentinel.controller.metrics import rows, series
from sentinel.controller.rule import RuleController
from sentinel.result import CostRecord, CycleRecord, GrowthRecord
from tests.unit.controller.measured import first, measured, survivors


def cycle(number, decision, *, loss, growth=None):
    return CycleRecord(
        cycle=number,
        sparsity={"attention": 0.1},
        cost=CostRecord(kind="sparsity", goal=1, predicted=1, measured=1),
        removed={},
        evaluations=0,
        loss_before_healing=loss + 0.2,
        loss=loss,
        compensation=[],
        decision=decision,
        growth=growth,
    )


def decisions():
    controller = RuleController(Memory(), grow=0.1)
    return controller.decide(first()), controller.decide(measured(**survivors(1, [0.5, 0.5]), progress=0.4))


GROWTH = GrowthRecord(
    strategy="random",
    grown={},
    removed={},
    gains={},
    accepted=False,
    loss_before=2.3,
    loss_grown=2.3,
    loss_after=2.4,
    loss_without=2.3,
    reason="No.",
)


def test_series_are_numbers_by_name():
    _, grow = decisions()
    assert series(grow) == {"controller_progress": 0.5, "controller_steps": 20, "controller_grow": 0.1}


def test_rows_tell_what_was_decided_on_what_grounds_and_what_it_came_to():
    plan, grow = decisions()
    one, two = rows([cycle(1, plan, loss=2.2), cycle(2, grow, loss=2.3, growth=GROWTH)])
    assert list(one) == list(two)
    assert (one["action"], one["growth_accepted"], one["grow_layers"]) == ("prune", "", "")
    assert (two["action"], two["growth_accepted"], two["grow_layers"]) == ("grow", 0, "1")
    assert (two["loss_before_healing"], two["loss"], two["strain_1"]) == (2.5, 2.3, 2.0)
    assert two["reason"] == grow.reason


def test_rows_are_a_csv_and_cycles_without_a_controller_have_none():
    plan, grow = decisions()
    table = rows([cycle(1, None, loss=2.0), cycle(2, plan, loss=2.2), cycle(3, grow, loss=2.3)])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    read = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [row["cycle"] for row in read] == ["2", "3"]
    assert float(read[1]["excess"]) == table[1]["excess"]
    assert rows([cycle(1, None, loss=2.0)]) == []
