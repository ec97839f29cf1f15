"""Two pictures of a run: which groups are left, and how the loss went. Knows results, no model."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sentinel.result import Result

# One blue for what is kept, one orange for cuts; told apart by people with any colour vision.
KEPT_COLOUR = "#2f6fb0"
CUT_COLOUR = "#e07b39"
GONE_COLOUR = "#e8e8e8"


# Wider sites, as those of neurons, are drawn as one bar per layer.
MOST_SQUARES = 64


def plot_kept_groups(kept: Sequence[Sequence[int]], dense_counts: Sequence[int], path: Path, *, unit: str) -> None:
    """Draw layers × groups of the dense model, kept ones filled, removed ones pale; neurons as one bar per layer."""
    layers, widest = len(dense_counts), max(dense_counts)
    squares = widest <= MOST_SQUARES
    figure = Figure(figsize=(1.6 + (0.5 * widest if squares else 6), 1.4 + 0.4 * layers), layout="constrained")
    axes = figure.add_subplot()
    if squares:
        _draw_squares(axes, kept, dense_counts)
    else:
        axes.barh(np.arange(layers) + 0.5, dense_counts, color=GONE_COLOUR, height=0.8)
        axes.barh(np.arange(layers) + 0.5, [len(groups) for groups in kept], color=KEPT_COLOUR, height=0.8)
    axes.set_yticks(np.arange(layers) + 0.5, [str(layer) for layer in range(layers)])
    axes.invert_yaxis()
    axes.set(xlabel=f"{unit} group" if squares else f"{unit} groups kept", ylabel="layer")
    axes.set_title(f"{sum(map(len, kept))} of {sum(dense_counts)} {unit} groups kept", fontsize=10)
    figure.savefig(path, dpi=150)


def _draw_squares(axes: Axes, kept: Sequence[Sequence[int]], dense_counts: Sequence[int]) -> None:
    widest = max(dense_counts)
    grid = np.full((len(dense_counts), widest), np.nan)
    for layer, (groups, count) in enumerate(zip(kept, dense_counts, strict=True)):
        grid[layer, :count] = 0
        grid[layer, list(groups)] = 1
    colours = ListedColormap([GONE_COLOUR, KEPT_COLOUR])
    axes.pcolormesh(grid, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=2)
    axes.set_xticks(np.arange(widest) + 0.5, [str(group) for group in range(widest)])
    axes.set_aspect("equal")


def plot_losses(metrics_file: Path, result: Result, path: Path) -> None:
    """Draw the held-out loss after each cut and each healing, and the healing loss of every step."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    held_out, healing = figure.subplots(1, 2)
    cycles = [record.cycle for record in result.cycles]
    held_out.axhline(result.dense.loss, color="grey", linestyle="--", linewidth=1, label="dense")
    held_out.plot(cycles, [r.loss_before_healing for r in result.cycles], "v", color=CUT_COLOUR, label="after the cut")
    held_out.plot(cycles, [r.loss for r in result.cycles], "o-", color=KEPT_COLOUR, label="after healing")
    held_out.xaxis.set_major_locator(MaxNLocator(integer=True))
    held_out.set(xlabel="cycle", ylabel="held-out loss (nats per token)")
    held_out.legend(frameon=False)
    steps, losses = _series(metrics_file, "healing_loss")
    healing.plot(steps, losses, color=KEPT_COLOUR, linewidth=1)
    healing.set(xlabel="healing step", ylabel="healing loss (nats per token)")
    figure.savefig(path, dpi=150)


def _series(metrics_file: Path, name: str) -> tuple[list[int], list[float]]:
    lines = (json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines())
    points = [(line["step"], line["value"]) for line in lines if line["name"] == name]
    return [step for step, _ in points], [value for _, value in points]
