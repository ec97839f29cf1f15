"""Small records of cycles, and a result around them, made by hand: what a picture must show is known."""

from sentinel.manifest import Run
from sentinel.result import (
    CostRecord,
    CycleRecord,
    DecisionRecord,
    GroupCounts,
    GrowthRecord,
    Measurement,
    Memory,
    Protocol,
    PrunedMeasurement,
    Result,
)
from sentinel.spec import parse_spec
from sentinel.utils.series import Point

HOSTILE = '</text><script>alert(1)</script> & "quoted"'


def cycle(
    number,
    *,
    removed=None,
    grown=None,
    swapped=None,
    accepted=True,
    signals=None,
    states=None,
    decision=None,
    measured=0.0,
    loss=1.0,
):
    """A record; `removed`, `grown` and `swapped`, which went for what grew, are layer → attention groups."""
    growth = grown and GrowthRecord(
        strategy="random",
        grown={"attention": grown},
        removed={"attention": swapped or {}},
        gains={},
        accepted=accepted,
        loss_before=1.2,
        loss_grown=1.1,
        loss_after=1.1,
        loss_without=1.15,
        reason="It paid | so it stayed.",
    )
    return CycleRecord(
        cycle=number,
        sparsity={},
        cost=CostRecord(kind="parameters", goal=measured, predicted=measured, measured=measured),
        removed={"attention": removed or {}},
        evaluations=0,
        loss_before_healing=loss + 0.5,
        loss=loss,
        compensation=[],
        signals=signals or {},
        states=states or {},
        growth=growth or None,
        decision=decision,
    )


def decision(action, *, progress=0.5, grow=0.0, steps=10, reason="Because."):
    return DecisionRecord(
        action=action, progress=progress, grow=grow, steps=steps, measurements={"loss": 1.25}, reason=reason
    )


def result(cycles, *, loss=1.0, parameters=60, text="text", latency_ms=1.0):
    measured = {"perplexity": 2.0, "groups": GroupCounts(attention=6, mlp=200), "samples": []}
    size = {"kv_bytes_per_token": 8, "latency_ms": latency_ms}
    return Result(
        dense=Measurement(loss=0.5, parameters=100, **measured, **size),
        pruned=PrunedMeasurement(loss=loss, parameters=parameters, kl_to_dense=0.1, agreement=0.9, **measured, **size),
        tasks=[],
        cycles=cycles,
        removed={},
        export_form="stock",
        protocol=Protocol(text=text, sequence_length=8, windows=2, tokens=14, description="how"),
        timings_s={},
        memory=Memory(estimated_bytes=1, peak_bytes=1),
        checkpoint="checkpoint",
    )


def everything():
    """A run and its series that have every picture there is."""
    signals = {
        name: {0: {0: 0.5, 1: 0.001}, 1: {0: 0.25, 1: 0.75, 2: 0.125}}
        for name in ("importance", "entropy", "utilisation", "gradient_norm", "gate")
    }
    states = {0: ["active", "active", "withdrawn"], 1: ["active", "overloaded", "misaligned"]}
    cycles = [
        cycle(
            1, removed={1: [2]}, signals=signals, states=states, decision=decision("prune", reason=HOSTILE), measured=80
        ),
        cycle(2, grown={1: [2]}, signals=signals, states=states, decision=decision("grow", grow=0.1), measured=70),
    ]
    spec = parse_spec({"model": "builtin/llama", "prune": {"target": {"parameters": 70}}})
    kept = {"attention": [[0, 1, 2], [0, 1, 2]], "mlp": [list(range(100))] * 2}
    run = Run(spec=spec, result=result(cycles), kept=kept, dense_counts={"attention": [3, 3], "mlp": [100, 100]})
    series = {
        "dense_loss": [Point(0, 0.5, None)],
        "pruned_loss": [Point(0, 1.5, 1), Point(2, 1.25, 2)],
        "pruned_kl": [Point(0, 0.5, 1), Point(2, 0.25, 2)],
        "healed_loss": [Point(2, 1.0, 1), Point(4, 0.75, 2)],
        "healing_loss": [Point(1, 0.5, 1), Point(2, 0.4, 1), Point(3, 0.3, 2), Point(4, 0.2, 2)],
        "healing_held_out_loss": [Point(2, 1.0, 1), Point(4, 0.75, 2)],
    }
    return run, series
