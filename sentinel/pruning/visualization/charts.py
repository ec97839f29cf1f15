"""Which pictures a run has, and several runs together. What was not measured has none."""

from collections.abc import Mapping

from sentinel.manifest import Run
from sentinel.pruning.visualization.decisions import decisions
from sentinel.pruning.visualization.gate_paths import gate_paths
from sentinel.pruning.visualization.group_history import group_history
from sentinel.pruning.visualization.group_states import touched_units
from sentinel.pruning.visualization.healing import PANELS, healing
from sentinel.pruning.visualization.kept_groups import kept_groups
from sentinel.pruning.visualization.losses import has_losses, losses
from sentinel.pruning.visualization.overlay import overlay
from sentinel.pruning.visualization.pareto import differing_costs, pareto
from sentinel.pruning.visualization.reading import RecordedRun
from sentinel.pruning.visualization.signal_map import measured_signals, signal_map
from sentinel.pruning.visualization.size_path import groups_to_prune, size_path
from sentinel.pruning.visualization.state_map import state_map
from sentinel.pruning.visualization.style import Chart
from sentinel.utils.series import Series, compare


def charts_of_run(run: Run, series: Series) -> dict[str, Chart]:
    """Name → picture of one run."""
    cycles, charts = run.result.cycles, dict[str, Chart]()
    units = touched_units(cycles, run.dense_counts)
    for unit in units:
        charts[f"{unit}_groups"] = kept_groups(run.kept[unit], run.dense_counts[unit], unit=unit)
        charts[f"{unit}_history"] = group_history(cycles, run.dense_counts[unit], unit=unit)
    for signal in measured_signals(cycles):
        charts[f"{signal}_map"] = signal_map(cycles, run.dense_counts["attention"], signal=signal)
    if any(record.states for record in cycles):
        charts["state_map"] = state_map(cycles)
    if sum(any(record.signals.get("gate", {}).values()) for record in cycles) > 1:
        charts["gates"] = gate_paths(cycles)
    if has_losses(series):
        charts["losses"] = losses(series)
    if run.spec.heal and any(series.get(name) for name in PANELS):
        charts["healing"] = healing(series, objective=run.spec.heal.loss)
    if units:
        charts["size_path"] = size_path(
            run.result, dense_groups=groups_to_prune(run.spec.prune.units, run.dense_counts)
        )
    if any(record.decision for record in cycles):
        charts["decisions"] = decisions(cycles)
    return charts


def charts_of_runs(runs: Mapping[str, RecordedRun]) -> dict[str, Chart]:
    """Name → picture of several runs that were measured under one protocol."""
    results = {name: recorded.run.result for name, recorded in runs.items()}
    charts: dict[str, Chart] = {
        f"pareto_{cost}": pareto(results, cost=cost) for cost in differing_costs(list(results.values()))
    }
    series = {name: recorded.series for name, recorded in runs.items()}
    for name in compare(series):
        points = {run: recorded[name] for run, recorded in series.items()}
        if max(map(len, points.values())) > 1:
            charts[f"{name}_of_runs"] = overlay(points, name=name)
    return charts
