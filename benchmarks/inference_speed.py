"""How much faster a pruned Llama of 111 M parameters is (or of 1.3 B), and whether a latency target is met.

Random weights: speed depends on shapes, not on what a model has learnt. Half of the attention groups and 40 % of the
neurons go. Dense and pruned model take turns in one process, so that a busy machine hits both alike.

- `prefill_speedup`, `decode_speedup`: dense time over pruned time, and beside them the ratio of FLOPs per token.
- `latency_target_error`: `allocation: cost` is given a share of the dense latency as its target; how far the share
  measured afterwards lies above (+) or below (−) it, relative to it.

Everything is repeated; the table shows the median and the range over the repetitions.
"""

import argparse
import copy
import json
import statistics

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sentinel.models.evaluation import count_parameters
from sentinel.models.families import family_of
from sentinel.models.optimized.inference_benchmark import forward_latency, measure_speed
from sentinel.prune_spec import Prune
from sentinel.pruning.costs import cost_of, flops_per_token
from sentinel.pruning.levels import choice_of
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.selection import select
from sentinel.pruning.strategies import rank_groups
from sentinel.pruning.trial import as_cut

FAMILY = family_of("llama")
ATTENTION_SPARSITY, MLP_SPARSITY = 0.5, 0.4
LATENCY_SHARE = 0.7
# Two query heads for each KV head.
SIZES = {
    "111M": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_key_value_heads": 8},
    "1.3B": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_key_value_heads": 16},
}


def dense_model(options: argparse.Namespace) -> PreTrainedModel:
    """Random weights of one of the sizes."""
    torch.manual_seed(0)
    shape = SIZES[options.size]
    config = LlamaConfig(vocab_size=8192, num_attention_heads=2 * shape["num_key_value_heads"], **shape)
    with torch.device(options.device):
        model = LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)
    return model.to(getattr(torch, options.dtype))


def pruned_copy(dense: PreTrainedModel, window: torch.Tensor, **prune: object) -> PreTrainedModel:
    """Cut at random, which makes no difference to the speed, and left unrepaired."""
    section = Prune.model_validate({"strategy": "random", "search": None, **prune})
    module = PruningModule(copy.deepcopy(dense), FAMILY)
    calibration = module.calibration(window, section, seed=0)
    module.cut(calibration, module.select(calibration, section).cut, compensation=None)
    return module.model


def speedups(dense: PreTrainedModel, prompt: torch.Tensor) -> dict[str, float]:
    """FLOPs and times of the dense model over those of the pruned one."""
    few_heads = pruned_copy(dense, prompt, units=["attention"], target={"sparsity": ATTENTION_SPARSITY})
    pruned = pruned_copy(few_heads, prompt, units=["mlp"], target={"sparsity": MLP_SPARSITY})
    before, after = measure_speed([dense, pruned], prompt)
    flops = [flops_per_token(model, FAMILY, prompt.shape[1]) for model in (dense, pruned)]
    return {
        "parameters": count_parameters(dense),
        "pruned_parameters": count_parameters(pruned),
        "flops_ratio": flops[0] / flops[1],
        "prefill_speedup": before.prefill_ms / after.prefill_ms,
        "decode_speedup": before.decode_ms / after.decode_ms,
        "prefill_ms": before.prefill_ms,
        "decode_ms": before.decode_ms,
    }


def latency_target(dense: PreTrainedModel, prompt: torch.Tensor) -> dict[str, float]:
    """A share of the dense latency: asked for, and found when both models take turns.

    Goes the way of `PruningModule.select`, but asks for a share of the very latency that the selection measured: that
    a machine is slower a minute later says nothing about the selection.
    """
    module = PruningModule(copy.deepcopy(dense), FAMILY)
    section = Prune.model_validate(
        {"strategy": "random", "units": ["attention", "mlp"], "target": {"latency_ms": 1}, "allocation": "cost"}
    )
    calibration = module.calibration(prompt, section, seed=0)
    sites, cost = calibration.sites(), cost_of("latency_ms", calibration)
    choices = [choice_of(section, site, dense_count=site.num_groups, cost=cost) for site in sites]
    needed = (1 - LATENCY_SHARE) * cost.total
    removed = select(rank_groups(calibration, "random"), choices, needed, allocation=section.allocation)
    module.cut(calibration, as_cut(sites, removed), compensation=None)
    before, after = forward_latency([dense, module.model], prompt[0])
    return {
        "latency_target_share": LATENCY_SHARE,
        "latency_found_share": after / before,
        "latency_target_error": after / before / LATENCY_SHARE - 1,
    }


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Both claims, once."""
    dense = dense_model(options)
    prompt = torch.randint(dense.config.vocab_size, (1, options.prompt_tokens), device=options.device)
    return {**speedups(dense, prompt), **latency_target(dense, prompt)}


def main() -> None:
    """Print a table; with --json also one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--size", default="111M", choices=list(SIZES))
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = [measure(options) for _ in range(options.repetitions)]
    medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
    table = Table("", "median", "lowest", "highest", title="dense against pruned")
    for name, median in medians.items():
        values = [one[name] for one in found]
        table.add_row(name, *(f"{value:.4g}" for value in (median, min(values), max(values))))
    Console().print(table)
    if options.json:
        print(json.dumps({**medians, "repetitions": found}))


if __name__ == "__main__":
    main()
