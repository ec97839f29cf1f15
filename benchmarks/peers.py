"""Lets another library prune a Llama, so that its choice can be compared with ours at equal count.

The peer is `torch_pruning` 1.6 (Fang 2023): its own `BasePruner` traces the model, scores, ranks and cuts, with the
default settings of its importance classes. Where this differs from its LLM example, and why:

- The head count declared for `q_proj` is the number of KV heads. With the true count the pruner wants
  the same number of query heads from every KV group and never a key or a value; with the smaller one a "head" is a KV
  head with its query heads and goes as a whole.
- Its dependency graph is traced in eager attention and without the rotation of queries and keys. Following RoPE's
  slices does not end within minutes; under SDPA, key channels are taken for query channels of the same index. Neither
  matters to the result: rotation mixes no heads, and the cut model runs with both as before.
- A channel of a KV head is in a group once for every query head that reads it. Scoring is left like that; before the
  cut the repetitions go, which the pruner would take for further channels and then refuse to cut a layer in half.
- Ratios are given such that the pruner's own rounding lands on the nearest count, half up.
- Nothing but the unit is prunable; the hidden size stays.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Literal
from unittest.mock import patch

import torch
import torch_pruning
from torch import nn
from torch_pruning.dependency import Group
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.models.llama import modeling_llama

from sentinel.data.loaders.windows import token_batches
from sentinel.utils.metrics import next_token_losses

Unit = Literal["attention", "mlp"]
Importance = Literal["magnitude", "taylor"]

_IMPORTANCES: dict[str, Callable[[], torch_pruning.importance.Importance]] = {
    "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
    "taylor": torch_pruning.importance.GroupTaylorImportance,
}
# The projections whose outputs a unit may lose; what reads those outputs follows.
_PRUNABLE: dict[Unit, tuple[str, ...]] = {
    "attention": ("q_proj", "k_proj", "v_proj"),
    "mlp": ("gate_proj", "up_proj"),
}
# Any text will do for the tracing.
_TRACED_TOKENS = 10


def torch_pruning_model(
    model: LlamaForCausalLM,
    windows: torch.Tensor,
    *,
    unit: Unit,
    sparsity: float,
    importance: Importance,
    global_pruning: bool,
) -> PreTrainedModel:
    """A pruned copy of `model`; its config still holds the dense counts.

    The scores are torch_pruning's: per channel the mean, over all projections of the unit, of Σ w² (`magnitude`) or
    Σ |w ∂loss/∂w| (`taylor`), divided by the layer's mean; a KV group has the mean of its channels. Keys and values
    count once for every query head that reads them.

    Args:
        model: A dense Llama; left as it is.
        windows: (windows, length) token ids for the gradients that `taylor` needs; `magnitude` ignores them.
        unit: `attention` removes KV heads with their query heads, `mlp` intermediate neurons.
        sparsity: Share to remove, of every layer or of all layers together.
        importance: The score.
        global_pruning: Rank all layers together; otherwise every layer loses the same number.

    Raises:
        RuntimeError: The pruner did not remove the number asked for. In global mode it leaves a layer whole that
            its ranking would empty.
    """
    pruned = copy.deepcopy(model).eval().requires_grad_(requires_grad=True)
    if importance == "taylor":
        _accumulate_gradients(pruned, windows)
    dense = unit_counts(pruned, unit)
    pruner = _pruner(pruned, unit, sparsity, _IMPORTANCES[importance](), global_pruning=global_pruning)
    with patch.object(pruner.DG, "check_pruning_group", _with_distinct_indices(pruner.DG.check_pruning_group)):
        pruner.step()
    pruned.zero_grad(set_to_none=True)
    _check_counts(dense, unit_counts(pruned, unit), sparsity, global_pruning=global_pruning)
    return pruned


def unit_counts(model: LlamaForCausalLM, unit: Unit) -> list[int]:
    """KV heads or intermediate neurons per layer, read off the weights."""
    if unit == "mlp":
        return [layer.mlp.down_proj.in_features for layer in model.model.layers]
    return [layer.self_attn.k_proj.out_features // layer.self_attn.head_dim for layer in model.model.layers]


def _pruner(
    model: LlamaForCausalLM,
    unit: Unit,
    sparsity: float,
    importance: torch_pruning.importance.Importance,
    *,
    global_pruning: bool,
) -> torch_pruning.pruner.BasePruner:
    counts = unit_counts(model, unit)
    ratio = _ratio(sum(counts) if global_pruning else counts[0], sparsity)
    with warnings.catch_warnings():
        # Norm weights are no layers to it; they lie along the hidden size, which stays.
        warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
        return torch_pruning.pruner.BasePruner(
            model,
            example_inputs=torch.zeros((1, _TRACED_TOKENS), dtype=torch.int64, device=model.device),
            forward_fn=_traced_logits,
            importance=importance,
            global_pruning=global_pruning,
            # Needed for `attention` too: without a ratio for channels the pruner does not get to the heads.
            pruning_ratio=ratio,
            head_pruning_ratio=ratio,
            ignored_layers=_ignored_layers(model, unit),
            num_heads=_heads(model) if unit == "attention" else {},
            prune_num_heads=True,
            prune_head_dims=False,
            # Its defaults are dictionaries that all pruners share and write to.
            in_channel_groups={},
            out_channel_groups={},
        )


def _with_distinct_indices(check: Callable[[Group], bool]) -> Callable[[Group], bool]:
    """The pruner's last look at a group before it cuts it, without repetitions among its indices."""

    def checked(group: Group) -> bool:
        for position, (dependency, indices) in enumerate(group.items):
            group[position] = (dependency, sorted(set(indices)))
        return check(group)

    return checked


def _ratio(total: int, sparsity: float) -> float:
    # The pruner keeps floor(total · (1 − ratio)): half a group less than wanted, so that no rounding error can tip it.
    return max(0.0, (_removed_of(total, sparsity) - 0.5) / total)


def _removed_of(total: int, sparsity: float) -> int:
    return int(total * sparsity + 0.5)


def _heads(model: LlamaForCausalLM) -> dict[nn.Module, int]:
    projections = (getattr(layer.self_attn, name) for layer in model.model.layers for name in _PRUNABLE["attention"])
    return dict.fromkeys(projections, model.config.num_key_value_heads)


def _ignored_layers(model: LlamaForCausalLM, unit: Unit) -> list[nn.Module]:
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Embedding)) and not name.endswith(_PRUNABLE[unit])
    ]


def _traced_logits(model: LlamaForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with patch.object(modeling_llama, "apply_rotary_pos_emb", _unrotated):
            return model(input_ids=tokens, use_cache=False).logits
    finally:
        model.set_attn_implementation(usual)


def _unrotated(q: torch.Tensor, k: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, torch.Tensor]:
    return q, k


def _accumulate_gradients(model: PreTrainedModel, windows: torch.Tensor) -> None:
    """Weight gradients of the mean next-token loss."""
    predicted = windows.shape[0] * (windows.shape[1] - 1)
    for batch in token_batches(windows):
        logits = model(input_ids=batch, use_cache=False).logits
        (next_token_losses(logits, batch).sum() / predicted).backward()


def _check_counts(dense: Sequence[int], left: Sequence[int], sparsity: float, *, global_pruning: bool) -> None:
    gone = [before - after for before, after in zip(dense, left, strict=True)]
    found, scopes = ([sum(gone)], [sum(dense)]) if global_pruning else (gone, dense)
    wanted = [_removed_of(total, sparsity) for total in scopes]
    if found != wanted:
        raise RuntimeError(f"torch_pruning removed {found} of {list(scopes)} instead of {wanted}.")
