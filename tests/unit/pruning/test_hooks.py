"""What looks into a model, gates it or copies its layers leaves nothing behind, also where it fails in the middle."""

import pytest
import torch

from sentinel.heal_spec import Heal
from sentinel.models.evaluation import compare, mean_loss
from sentinel.models.optimized.inference_benchmark import forward_latency
from sentinel.prune_spec import Prune
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.strategies import STRATEGIES, rank_groups
from tests.unit.pruning.tiny import CUT, calibrate, tiny_gpt2, tiny_llama

COMPENSATIONS = ("least_squares", "residual_least_squares", "reconstruction")
WEIGHTS_ONLY = ("ranking-random", "ranking-magnitude")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Broken(Exception):
    """What a part of the model raises."""


def ranking(strategy):
    def work(calibration: Calibration):
        units = ["attention"] if strategy == "entropy" else ["attention", "mlp"]
        rank_groups(calibrate(calibration.model, calibration.windows, *units), strategy)

    return work


def cutting(compensation):
    def work(calibration: Calibration):
        PruningModule(calibration.model, calibration.family).cut(calibration, CUT, compensation=compensation)

    return work


def searching(calibration: Calibration):
    prune = Prune(
        target={"sparsity": 0.4}, units=["attention", "mlp"], mlp_block=1, search={"evaluations": 6, "windows": 4}
    )
    PruningModule(calibration.model, calibration.family).select(calibration, prune)


def evaluating(calibration: Calibration):
    mean_loss(calibration.model, calibration.windows)
    compare(calibration.model, calibration.model, calibration.windows)
    forward_latency([calibration.model], calibration.windows[0])


def healing(calibration: Calibration):
    heal = Heal(steps=4, batch_tokens=48, precision="float32")
    tuner = FineTuner(heal=heal, dense=calibration.model)
    tuner.fine_tune(calibration.model, calibration.windows, seed=0)


WORKS = {
    **{f"ranking-{name}": ranking(name) for name in STRATEGIES},
    **{f"cutting-{name}": cutting(name) for name in COMPENSATIONS},
    "searching": searching,
    "evaluating": evaluating,
    "healing": healing,
}


def fresh(make):
    return calibrate(make(), torch.randint(0, 61, (6, 24), generator=torch.Generator().manual_seed(1)))


def break_at(calibration: Calibration, call):
    """Let the last layer's MLP, and every copy of it, raise at that call of theirs; how often they are called."""
    mlp = calibration.family.layers(calibration.model)[-1].mlp
    calls = []

    class Breaking(type(mlp)):
        def forward(self, *arguments):
            calls.append(1)
            if len(calls) == call:
                raise Broken
            return super().forward(*arguments)

    mlp.__class__ = Breaking
    return calls


def state_of(calibration: Calibration):
    """Everything of a model that work may touch for a while only."""
    model = calibration.model
    modules = dict(model.named_modules())
    return {
        "hooks": [(name, kind) for name, module in modules.items() for kind in HOOKS if getattr(module, kind)],
        "forwards": [name for name, module in modules.items() if "forward" in module.__dict__],
        "layers": [id(layer) for layer in calibration.family.layers(model)],
        "learning": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        "gradients": [name for name, parameter in model.named_parameters() if parameter.grad is not None],
        "attention": model.config._attn_implementation,
        "training": model.training,
    }


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama], ids=["gpt2", "llama"])
@pytest.mark.parametrize("name", WORKS)
def test_nothing_stays_behind(make, name):
    whole = fresh(make)
    calls, before = break_at(whole, call=None), state_of(whole)
    assert before["hooks"] == before["forwards"] == before["learning"] == []
    WORKS[name](whole)
    assert state_of(whole) == before
    assert bool(calls) == (name not in WEIGHTS_ONLY)
    for call in {1, len(calls) // 2 + 1, len(calls)} if calls else ():
        broken = fresh(make)
        break_at(broken, call=call)
        before = state_of(broken)
        with pytest.raises(Broken):
            WORKS[name](broken)
        assert state_of(broken) == before
