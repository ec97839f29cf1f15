"""What a model costs, and what each site saves when groups go: groups, parameters, FLOPs, cache bytes, milliseconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from sentinel.models.evaluation import count_parameters, kv_bytes_per_token
from sentinel.models.families.base import Family, Part, Site, Unit
from sentinel.models.optimized.inference_benchmark import forward_latency, interleaved_medians, prefill
from sentinel.models.optimized.surgery import layer_copy
from sentinel.prune_spec import TargetName
from sentinel.pruning.calibration import Calibration, LayerwisePass

CostName = TargetName | Literal["sites"]

# Numbers of groups at which a site's latency is measured; between them it is interpolated.
LATENCY_POINTS = 9
# Timed rounds per size: an allocation adds up many small differences.
LATENCY_REPEATS = 41


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One way to count what a model costs.

    Attributes:
        total: The whole model now.
        savings: From a site and numbers of its groups that go to what each number saves, in the unit of `total`.
    """

    total: float
    savings: Callable[[Site, Sequence[int]], np.ndarray]


def cost_of(kind: CostName, calibration: Calibration) -> Cost:
    """The cost that a target of this kind counts; latency is measured here and now."""
    return _COSTS[kind](calibration)


def flops_per_token(model: PreTrainedModel, family: Family, sequence_length: int) -> float:
    """Floating-point operations of a forward pass per token, averaged over a causal window of `sequence_length`.

    Two for each weight of a matrix product (the output layer included, embeddings not), and two products of every
    query head's width with half the window for attention.
    """
    multiplying = (module for module in model.modules() if not isinstance(module, nn.Embedding))
    matrices = sum(p.numel() for module in multiplying for p in module.parameters(recurse=False) if p.ndim >= 2)
    attention = sum(s.num_groups * s.group_width for s in family.sites(model, ["attention"]))
    return 2.0 * matrices + 2.0 * sequence_length * attention


def _groups(calibration: Calibration) -> Cost:
    total = sum(site.num_groups for site in calibration.sites())
    return Cost(total=total, savings=lambda _, counts: np.asarray(counts, dtype=float))


def _whole_sites(calibration: Calibration) -> Cost:
    return Cost(
        total=len(calibration.sites()), savings=lambda site, counts: np.asarray(counts, dtype=float) / site.num_groups
    )


def _parameters(calibration: Calibration) -> Cost:
    model, family = calibration.model, calibration.family

    def savings(site: Site, counts: Sequence[int]) -> np.ndarray:
        last = sum(part.size() for part in family.parts_of_last(model, site.layer, site.unit))
        return _of_groups(site, counts, each=site.group_parameters, last=last)

    return Cost(total=count_parameters(model), savings=savings)


def _flops(calibration: Calibration) -> Cost:
    model, family, length = calibration.model, calibration.family, calibration.windows.shape[1]

    def savings(site: Site, counts: Sequence[int]) -> np.ndarray:
        place = (model, site.layer, site.unit)
        weights = _multiplied(family.parts(*place)) // site.num_groups
        attention = 2 * length * site.group_width if site.unit == "attention" else 0
        last = 2 * _multiplied(family.parts_of_last(*place))
        return _of_groups(site, counts, each=2 * weights + attention, last=last)

    return Cost(total=flops_per_token(model, family, length), savings=savings)


def _multiplied(parts: Sequence[Part]) -> int:
    """Weights of matrix products."""
    return sum(value.numel() for part in parts for _, value, _ in part.tensors() if value.ndim >= 2)


def _of_groups(site: Site, counts: Sequence[int], *, each: int, last: int) -> np.ndarray:
    """What numbers of groups save if each saves `each`, and the site's last one `last` beside it."""
    gone = np.asarray(counts, dtype=float)
    return gone * each + (gone == site.num_groups) * last


def _kv_bytes(calibration: Calibration) -> Cost:
    model, family = calibration.model, calibration.family

    def savings(site: Site, counts: Sequence[int]) -> np.ndarray:
        per_group = 2 * family.head_dim(model.config) * model.dtype.itemsize if site.unit == "attention" else 0
        return np.asarray(counts, dtype=float) * per_group

    return Cost(total=kv_bytes_per_token(model, family), savings=savings)


def _latency(calibration: Calibration) -> Cost:
    """Measured: the whole model, and one layer at several sizes of each unit, which stands for all layers alike.

    The sizes of a layer take turns with the whole model, and what they save counts as a share of it: a machine that
    is busier now than it was a minute ago changes neither.
    """
    (total,) = forward_latency([calibration.model], calibration.windows[0])
    tables: dict[tuple[Unit, int], tuple[np.ndarray, np.ndarray]] = {}

    def savings(site: Site, counts: Sequence[int]) -> np.ndarray:
        size = (site.unit, site.num_groups)
        if size not in tables:
            tables[size] = _latency_table(calibration, site)
        return total * np.interp(np.asarray(counts, dtype=float), *tables[size])

    return Cost(total=total, savings=savings)


def _latency_table(calibration: Calibration, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of groups removed, and the share of the model's time that each saves in one layer, never falling."""
    removed = np.unique(np.linspace(0, site.num_groups, LATENCY_POINTS).astype(int))
    whole, *layers = _latencies(calibration, site, [site.num_groups - int(gone) for gone in removed])
    saved = np.maximum(layers[0] - np.asarray(layers), 0.0)
    # Half way between the lowest and the highest curve that never falls: noise then pushes neither up nor down.
    rising = (np.maximum.accumulate(saved) + np.minimum.accumulate(saved[::-1])[::-1]) / 2
    return removed.astype(float), rising / whole


def _latencies(calibration: Calibration, site: Site, counts: Sequence[int]) -> list[float]:
    """Milliseconds of the model on one window, then of the site's layer for each number of groups it might have."""
    model, family = calibration.model, calibration.family
    one = LayerwisePass(replace(calibration, windows=calibration.windows[:1]))
    copies = []
    for count in counts:
        with layer_copy(model, family, site.layer) as layer:
            family.keep_groups(model, site.layer, site.unit, range(count))
            copies.append(layer)
    calls = [partial(one.call, site.layer, layer) for layer in copies]
    # Whatever runs after the whole model finds the caches full of something else, so the first layer runs once more.
    rounds: list[Callable[[], object]] = [prefill(model, calibration.windows[:1]), calls[0], *calls]
    whole, _, *layers = interleaved_medians(rounds, repeats=LATENCY_REPEATS)
    return [whole, *layers]


_COSTS: Mapping[CostName, Callable[[Calibration], Cost]] = MappingProxyType(
    {
        "sparsity": _groups,
        "sites": _whole_sites,
        "parameters": _parameters,
        "flops": _flops,
        "kv_bytes": _kv_bytes,
        "latency_ms": _latency,
    }
)
