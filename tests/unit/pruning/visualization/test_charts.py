"""Every chart's marks are the data: read from its specification, without drawing it."""

from dataclasses import replace

import pytest

from sentinel.pruning.visualization.charts import charts_of_run, charts_of_runs
from sentinel.pruning.visualization.decisions import decisions
from sentinel.pruning.visualization.gate_paths import gate_paths
from sentinel.pruning.visualization.group_history import group_history
from sentinel.pruning.visualization.group_map import COLOURS, MOST_SQUARES
from sentinel.pruning.visualization.group_states import State
from sentinel.pruning.visualization.healing import MOST_POINTS, healing, thinned
from sentinel.pruning.visualization.kept_groups import kept_groups
from sentinel.pruning.visualization.losses import losses
from sentinel.pruning.visualization.overlay import overlay
from sentinel.pruning.visualization.pareto import pareto
from sentinel.pruning.visualization.reading import RecordedRun
from sentinel.pruning.visualization.signal_map import signal_map
from sentinel.pruning.visualization.size_path import size_path
from sentinel.pruning.visualization.state_map import REMOVED, state_map
from sentinel.spec import parse_spec
from sentinel.utils.series import Point
from tests.unit.pruning.visualization.records import cycle, decision, everything, result


def found(part, key):
    """Every value of a key, anywhere in a specification."""
    if isinstance(part, list):
        return [value for each in part for value in found(each, key)]
    if not isinstance(part, dict):
        return []
    here = [part[key]] if key in part else []
    return here + [value for name, each in part.items() if name != key for value in found(each, key)]


def tables(chart, part=None):
    """The rows that a specification, or a part of it, names as its data, in the order of its layers."""
    document = chart.to_dict()
    names = [data["name"] for data in found(part or document, "data")]
    return [document["datasets"][name] for name in dict.fromkeys(names)]


def rows(chart):
    """The data of a chart that has one table."""
    (table,) = tables(chart)
    return table


def encoding(chart, channel, field):
    """What a channel that shows a field says."""
    return next(c for c in found(chart.to_dict(), channel) if isinstance(c, dict) and c.get("field") == field)


def test_kept_groups_are_filled_and_removed_ones_pale():
    chart = kept_groups([[0, 2], []], [3, 1], unit="attention")
    assert {(r["layer"], r["group"]): r["state"] for r in rows(chart)} == {
        (0, 0): "kept",
        (0, 1): "gone",
        (0, 2): "kept",
        (1, 0): "gone",
    }
    colour = encoding(chart, "color", "state")["scale"]
    assert colour == {"domain": ["kept", "gone"], "range": [COLOURS[State.KEPT], COLOURS[State.GONE]]}
    assert chart.to_dict()["title"]["text"] == "2 attention groups; the dense model has 4"


def test_a_wide_site_is_a_bar_whose_parts_add_up():
    dense = MOST_SQUARES + 1
    chart = kept_groups([list(range(10))], [dense], unit="mlp")
    assert {r["state"]: r["groups"] for r in rows(chart)} == {"kept": 10, "gone": dense - 10}
    assert encoding(chart, "x", "groups")["title"] == "MLP neurons"
    assert found(kept_groups([[0]], [MOST_SQUARES], unit="mlp").to_dict(), "field").count("group") > 0


def test_history_has_a_panel_a_cycle_with_a_sign_for_what_changed():
    cycles = [cycle(1, removed={0: [1]}), cycle(2, grown={0: [1]}), cycle(3, grown={0: [2]}, accepted=False)]
    chart = group_history(cycles, [2], unit="attention")
    signs = {(r["cycle"], r["group"]): (r["state"], r["sign"]) for r in rows(chart)}
    assert signs == {
        (1, 0): ("kept", ""),
        (1, 1): ("cut in this cycle", "×"),
        (2, 0): ("kept", ""),
        (2, 1): ("grown in this cycle", "+"),
        (3, 0): ("kept", ""),
        (3, 1): ("kept", ""),
        (3, 2): ("grown, and taken out again", "±"),
    }
    assert chart.to_dict()["facet"]["field"] == "cycle"


def test_a_signal_has_its_value_its_unit_and_a_gap_where_a_group_is_gone():
    cycles = [
        cycle(1, removed={0: [1]}, signals={"entropy": {0: {0: 1.5, 1: 0.5}}}),
        cycle(2, signals={"entropy": {0: {0: 1.25}}}),
        cycle(3),
    ]
    chart = signal_map(cycles, [2], signal="entropy")
    assert [(r["cycle"], r["group"], r["value"], r["cut"]) for r in rows(chart)] == [
        (1, 0, 1.5, False),
        (1, 1, 0.5, True),
        (2, 0, 1.25, False),
        (2, 1, None, False),
    ]
    colour = encoding(chart, "color", "value")
    assert (colour["title"], colour["scale"]["scheme"]) == ("entropy of attention (nats)", "cividis")


def test_a_state_has_its_colour_and_its_sign_and_what_is_gone_is_told_from_what_is_idle():
    cycles = [
        cycle(1, signals={"entropy": {0: {0: 1, 1: 1}}}, states={0: ["overloaded", "withdrawn"]}),
        cycle(2, signals={"entropy": {0: {0: 1}}}, states={0: ["active", "withdrawn"]}),
        cycle(3),
    ]
    chart = state_map(cycles)
    assert [(r["cycle"], r["group"], r["state"], r["sign"]) for r in rows(chart)] == [
        (1, 0, "overloaded", "+"),
        (1, 1, "withdrawn", "−"),
        (2, 0, "active", ""),
        (2, 1, REMOVED, ""),
    ]
    assert encoding(chart, "color", "state")["scale"]["domain"] == ["active", "overloaded", "withdrawn", REMOVED]
    assert chart.to_dict()["title"]["subtitle"] == "+ overloaded, − withdrawn"
    assert chart.to_dict()["facet"]["field"] == "cycle"


@pytest.mark.parametrize(
    ("lowest", "kind"), [(1e-4, "log"), (0.5, "linear"), (0.0, "linear"), (-1.0, "linear"), (1.0, "linear")]
)
def test_importance_is_on_a_log_scale_only_where_it_spans_decades(lowest, kind):
    signals = {name: {0: {0: lowest, 1: 1.0}} for name in ("importance", "entropy")}
    types = [
        encoding(signal_map([cycle(1, signals=signals)], [2], signal=name), "color", "value")["scale"]["type"]
        for name in signals
    ]
    assert types == [kind, "linear"]


def test_a_gates_line_breaks_where_its_group_is_not_there():
    gates = [{0: {0: 1.0, 1: 0.5}}, {0: {0: 0.75}}, {0: {0: 0.5, 1: 0.25}}]
    chart = gate_paths([cycle(n, signals={"gate": gate}) for n, gate in enumerate(gates, start=1)])
    paths = {group: [r["value"] for r in rows(chart) if r["group"] == group] for group in (0, 1)}
    assert paths == {0: [1.0, 0.75, 0.5], 1: [0.5, None, 0.25]}
    assert encoding(chart, "color", "group")["scale"]["domain"] == [0, 1]


def test_many_gates_of_a_layer_share_a_colour():
    gates = {"gate": {0: dict.fromkeys(range(9), 1.0)}}
    chart = gate_paths([cycle(1, signals=gates), cycle(2, signals=gates)])
    assert not [c for c in found(chart.to_dict(), "color") if isinstance(c, dict) and "field" in c]
    assert encoding(chart, "detail", "group")


def test_losses_are_those_of_every_stage_in_nats_per_token():
    _, series = everything()
    chart = losses(series)
    loss, kl = chart.to_dict()["hconcat"]
    dense, points = tables(chart, loss)
    assert dense == [{"value": 0.5}]
    assert {(r["cycle"], r["stage"]): r["value"] for r in points} == {
        (1, "after the cut"): 1.5,
        (2, "after the cut"): 1.25,
        (1, "after healing"): 1.0,
        (2, "after healing"): 0.75,
    }
    assert [r["value"] for r in tables(chart, kl)[0]] == [0.5, 0.25]
    titles = [axis["title"] for part in (loss, kl) for axis in found(part, "y") if "title" in axis]
    assert titles == ["held-out loss (nats per token)", "KL(dense ‖ pruned) (nats per token)"]


def alone(kind):
    """A chart with one number on its axis, or one number over and over."""
    point, record = Point(0, 0.5224, 1), cycle(1, measured=80)
    record = record.model_copy(update={"cost": record.cost.model_copy(update={"kind": "flops"})})
    return {
        "losses": lambda: losses({"pruned_loss": [point]}),
        "healing": lambda: healing({"healing_loss": [point]}, objective="distill"),
        "overlay": lambda: overlay({"a": [point], "b": [point]}, name="pruned_kl"),
        "size_path": lambda: size_path(result([record]), dense_groups=206),
    }[kind]()


@pytest.mark.parametrize("kind", ["losses", "healing", "overlay", "size_path"])
def test_an_axis_of_one_number_begins_at_zero(kind):
    """One without length has a single tick, whose name is the number rounded to a whole one."""
    scales = [y["scale"] for y in found(alone(kind).to_dict(), "y") if "scale" in y]
    assert {scale["zero"] for scale in scales} == {True}


def test_healing_is_drawn_step_by_step_with_the_beginning_of_every_cycle():
    _, series = everything()
    chart = healing(series, objective="distill")
    training, held_out = chart.to_dict()["vconcat"]
    begins, points = tables(chart, training)
    assert begins == [{"step": 0}, {"step": 2}]
    assert [(r["step"], r["value"]) for r in points] == [(1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2)]
    assert [r["value"] for r in tables(chart, held_out)[1]] == [1.0, 0.75]
    assert encoding(chart, "y", "value")["title"][0] == "distillation loss"


def test_a_long_healing_is_thinned_to_means_that_keep_the_mean_and_the_cycles():
    points = [Point(step, float(step % 7), 1 if step <= 1001 else 2) for step in range(1, 2001)]
    few = thinned(points)
    assert len(few) <= MOST_POINTS
    assert [point.step for point in few if point.cycle == 1][-1] == 1001
    assert few[0] == Point(4, sum(p.value for p in points[:4]) / 4, 1)
    assert thinned(points[:5]) == points[:5]


def test_a_runs_path_begins_at_the_dense_model_and_counts_what_the_target_counts():
    chart = size_path(result([cycle(1, measured=80, loss=0.75), cycle(2, measured=70, loss=0.875)]), dense_groups=206)
    assert [(r["model"], r["cost"], r["loss"]) for r in rows(chart)] == [
        ("dense", 100, 0.5),
        ("cycle 1", 80, 0.75),
        ("cycle 2", 70, 0.875),
    ]
    assert encoding(chart, "x", "cost")["title"] == "parameters"


@pytest.mark.parametrize(
    ("kind", "dense"), [("sparsity", 206), ("parameters", 100), ("kv_bytes", 8), ("latency_ms", 1.0), ("flops", None)]
)
def test_the_dense_model_is_on_the_path_where_its_cost_is_known(kind, dense):
    record = cycle(1)
    record = record.model_copy(update={"cost": record.cost.model_copy(update={"kind": kind})})
    first = rows(size_path(result([record]), dense_groups=206))[0]
    assert (first["cost"] if first["model"] == "dense" else None) == dense


@pytest.mark.parametrize(("units", "dense"), [(["attention"], 6), (["attention", "mlp"], 206), (["layer"], 4)])
def test_a_path_by_groups_begins_at_all_that_the_spec_prunes(units, dense):
    """Whatever the cycles cut of it: here attention groups only."""
    run, series = everything()
    prune = {"units": units, "allocation": "global", "target": {"sparsity": 0.5}}
    record = cycle(1, removed={0: [1]})
    record = record.model_copy(update={"cost": record.cost.model_copy(update={"kind": "sparsity"})})
    spec = parse_spec({"model": "builtin/llama", "prune": prune})
    chart = charts_of_run(replace(run, spec=spec, result=result([record])), series)["size_path"]
    assert rows(chart)[0] == {"cycle": 0, "model": "dense", "cost": dense, "loss": 0.5}


def test_the_front_holds_the_runs_that_no_cheaper_one_beats():
    runs = {
        "small": result([], loss=1.5, parameters=40),
        "beaten": result([], loss=1.25, parameters=70),
        "good": result([], loss=1.0, parameters=60),
        "same size": result([], loss=1.125, parameters=60),
    }
    chart = pareto(runs, cost="parameters")
    assert [(r["name"], r["cost"], r["loss"], r["front"]) for r in rows(chart)] == [
        ("small", 40, 1.5, True),
        ("good", 60, 1.0, True),
        ("same size", 60, 1.125, False),
        ("beaten", 70, 1.25, False),
        ("dense", 100, 0.5, False),
    ]
    assert encoding(chart, "color", "label")["scale"]["domain"] == [*runs, "dense"]


def test_of_many_runs_those_on_the_front_have_names():
    worse = {str(n): result([], loss=1 + n / 10, parameters=40 + n) for n in range(10)}
    scale = encoding(pareto(worse, cost="parameters"), "color", "label")["scale"]
    assert scale["domain"] == ["0", "other runs", "dense"]
    better = {str(n): result([], loss=2 - n / 10, parameters=40 + n) for n in range(10)}
    scale = encoding(pareto(better, cost="parameters"), "color", "label")["scale"]
    assert (scale["domain"], scale["scheme"]) == ([*better, "dense"], "cividis")


def test_a_run_called_dense_is_told_from_the_dense_model():
    runs = {"dense": result([], loss=1.0, parameters=60), "other runs": result([], loss=1.5, parameters=40)}
    chart = pareto(runs, cost="parameters")
    assert [(r["label"], r["cost"]) for r in rows(chart)] == [("run other runs", 40), ("run dense", 60), ("dense", 100)]
    scale = encoding(chart, "color", "label")["scale"]
    assert scale["domain"] == ["run dense", "run other runs", "dense"]
    assert len(set(scale["range"])) == 3


def test_latency_is_told_against_the_dense_model_of_the_same_run():
    runs = {"idle": result([], latency_ms=2.0), "busy": result([], latency_ms=3.0)}
    fast = runs["busy"].pruned.model_copy(update={"latency_ms": 1.5})
    runs["busy"] = runs["busy"].model_copy(update={"pruned": fast})
    costs = {r["name"]: r["cost"] for r in rows(pareto(runs, cost="latency"))}
    assert costs == {"idle": 1.0, "busy": 0.5, "dense": 1.0}


def test_decisions_carry_their_reasons_and_the_panels_that_say_something():
    cycles = [
        cycle(1, decision=decision("prune", progress=0.25, steps=20)),
        cycle(2),
        cycle(3, decision=decision("grow", progress=0.25, grow=0.1, reason="The loss stands still.")),
    ]
    chart = decisions(cycles)
    table = rows(chart)
    assert table[1] == {
        "cycle": 3,
        "action": "grow",
        "progress": 0.25,
        "grow": 0.1,
        "steps": 10,
        "protected_layers": [],
        "grow_layers": [],
        "reason": "The loss stands still.",
        "measured": "loss 1.25",
    }
    assert "reason" in [tip["field"] for tip in found(chart.to_dict(), "tooltip")[0]]
    fields = [axis["field"] for axis in found(chart.to_dict(), "y")]
    assert [field for field in ("progress", "grow", "steps") if field in fields] == ["progress", "grow", "steps"]
    assert "grow" not in [axis["field"] for axis in found(decisions(cycles[:1]).to_dict(), "y")]


def test_an_overlay_is_over_cycles_or_over_steps():
    by_cycle = overlay({"a": [Point(2, 1.0, 1), Point(4, 0.5, 2)], "b": [Point(2, 2.0, 1)]}, name="healed_loss")
    assert [(r["run"], r["cycle"], r["value"]) for r in rows(by_cycle)] == [("a", 1, 1.0), ("a", 2, 0.5), ("b", 1, 2.0)]
    assert by_cycle.to_dict()["encoding"]["x"]["field"] == "cycle"
    assert by_cycle.to_dict()["encoding"]["y"]["title"] == "held-out loss after healing (nats per token)"
    by_step = overlay({"a": [Point(1, 1.0, 1), Point(2, 0.5, 1)]}, name="speed")
    assert by_step.to_dict()["encoding"]["x"]["field"] == "step"
    assert by_step.to_dict()["encoding"]["y"]["title"] == "speed"


def test_more_runs_than_colours_are_shades_of_one_scale():
    chart = overlay({str(n): [Point(1, 1.0, 1)] for n in range(9)}, name="healed_loss")
    assert encoding(chart, "color", "run")["scale"]["scheme"] == "cividis"


def test_a_run_has_the_pictures_of_what_it_measured_and_no_others():
    run, series = everything()
    signals = [f"{name}_map" for name in ("importance", "entropy", "utilisation", "gradient_norm", "gate")]
    assert list(charts_of_run(run, series)) == [
        "attention_groups",
        "attention_history",
        *signals,
        "state_map",
        "gates",
        "losses",
        "healing",
        "size_path",
        "decisions",
    ]
    bare = run.__class__(spec=run.spec, result=result([cycle(1)]), kept=run.kept, dense_counts=run.dense_counts)
    assert charts_of_run(bare, {}) == {}


def test_gates_of_a_model_without_attention_have_no_picture():
    run, _ = everything()
    bare = [cycle(1, signals={"gate": {}}), cycle(2, signals={"gate": {}})]
    assert charts_of_run(replace(run, result=result(bare)), {}) == {}


def test_runs_are_compared_by_what_all_of_them_have():
    run, series = everything()
    small = run.__class__(
        spec=run.spec, result=result([], loss=2.0, parameters=30), kept=run.kept, dense_counts=run.dense_counts
    )
    some = {name: series[name] for name in ("dense_loss", "healed_loss")}
    charts = charts_of_runs({"a": RecordedRun(run, series), "b": RecordedRun(small, some)})
    assert list(charts) == ["pareto_parameters", "healed_loss_of_runs"]
