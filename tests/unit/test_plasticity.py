"""An exchange keeps the size, and stands only where it beats as many steps without it."""

import copy
from dataclasses import replace

import pytest

from sentinel.inputs import load_inputs
from sentinel.models.evaluation import mean_loss
from sentinel.plasticity import Exchange, halves
from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.pruning.pruning_module import PruningModule
from sentinel.spec import parse_spec

pytestmark = pytest.mark.usefixtures("less_held_out_text")


class Steps(Observer):
    def __init__(self):
        self.taken = []

    def stepped(self, step, loss):
        self.taken.append(step)


def exchange(target, **grow):
    spec = parse_spec(
        {
            "model": "builtin/llama",
            "data": {"source": "builtin", "sequence_length": 32},
            "prune": {
                "units": ["attention", "mlp"],
                "target": target,
                "cycles": 2,
                "strategy": "taylor",
                "search": None,
                "compensation": "least_squares",
                "calibration_sequences": 8,
            },
            "heal": {"steps": 2, "batch_tokens": 64, "learning_rate": 1e-3},
            "grow": {"steps": 3, "fraction": 0.2, **grow},
            "evaluate": {"tokens": 32},
            "device": "cpu",
        }
    )
    inputs = load_inputs(spec, allowed_roots=None)
    module = PruningModule(copy.deepcopy(inputs.dense), inputs.family)
    calibration = module.calibration(inputs.calibration, spec.prune, seed=0)
    module.cut(calibration, module.select(calibration, spec.prune).cut, compensation="least_squares")
    return module, Exchange(inputs=inputs, prune=spec.prune, how=spec.grow, heal=spec.heal, seed=1, progress=1.0)


@pytest.mark.parametrize("target", [{"sparsity": 0.5}, {"parameters": 600_000}])
def test_both_sides_are_as_large_as_before_and_the_better_one_goes_on(target):
    module, swap = exchange(target)
    before = [tensor.clone() for tensor in module.model.state_dict().values()]
    size = sum(parameter.numel() for parameter in module.model.parameters())
    steps = Steps()
    after, record = swap.attempt(module, lambda taken: steps)
    assert steps.taken == [1, 2, 1]
    assert all((a == b).all() for a, b in zip(before, module.model.state_dict().values(), strict=True))
    new_size = sum(parameter.numel() for parameter in after.model.parameters())
    assert new_size == size if "sparsity" in target else new_size <= target["parameters"]
    held_out = swap.inputs.held_out
    assert record.loss_before == pytest.approx(mean_loss(module.model, held_out))
    assert mean_loss(after.model, held_out) == pytest.approx(min(record.loss_after, record.loss_without))
    assert record.accepted == (record.loss_after < record.loss_without)
    assert ("stands" in record.reason) == record.accepted
    came, went = (
        {unit: sum(map(len, layers.values())) for unit, layers in sides.items()}
        for sides in (record.grown, record.removed)
    )
    if "sparsity" in target:
        assert came == went
    expected = {
        unit: [
            sorted((set(kept) | set(record.grown[unit].get(layer, ()))) - set(record.removed[unit].get(layer, ())))
            for layer, kept in enumerate(layers)
        ]
        for unit, layers in module.kept.items()
    }
    assert after.kept == (expected if record.accepted else module.kept)


def test_the_size_comes_back_even_where_more_had_gone_than_the_target_asks_for():
    """Even counts leave 8 heads of 128 bytes each where 10 would do, and two come."""
    _, swap = exchange({"kv_bytes": 1280}, fraction=0.1)
    prune = swap.prune.model_copy(update={"units": ["attention"], "allocation": "uniform"})
    module = PruningModule(copy.deepcopy(swap.inputs.dense), swap.inputs.family)
    calibration = module.calibration(swap.inputs.calibration, prune, seed=0)
    module.cut(calibration, module.select(calibration, prune).cut, compensation="least_squares")
    assert [len(groups) for groups in module.kept["attention"]] == [2, 2, 2, 2]
    after, record = replace(swap, prune=prune).attempt(module, lambda taken: Observer())
    assert sum(map(len, record.grown["attention"].values())) == 2
    assert sum(map(len, record.removed["attention"].values())) == 2
    assert [len(groups) for groups in after.kept["attention"]] == [2, 2, 2, 2]


@pytest.mark.parametrize("initialization", ["fresh", "split"])
def test_only_what_the_target_counts_is_exchanged(initialization):
    """Neurons have no cache: as many as came would never go again."""
    module, swap = exchange({"kv_bytes": 1024}, initialization=initialization)
    size = sum(parameter.numel() for parameter in module.model.parameters())
    after, record = swap.attempt(module, lambda taken: Observer())
    assert list(record.grown) == list(record.removed) == ["attention"]
    assert sum(parameter.numel() for parameter in after.model.parameters()) == size
    mlp_only = swap.prune.model_copy(update={"units": ["mlp"]})
    assert replace(swap, prune=mlp_only).attempt(module, lambda taken: Observer()) is None


@pytest.mark.parametrize("half", [0, 1])
def test_what_is_not_finite_any_more_is_undone(monkeypatch, half):
    """As every harm that an exchange does: the copy goes on."""
    module, swap = exchange({"sparsity": 0.5})

    learn, grown = Exchange._learn, []

    def learnt(self, module, at, observer, **settings):
        learn(self, module, at, observer, **settings)
        if settings or grown:  # with factors it is the first half of what grew
            grown.append(module)
            if at == half:
                next(module.model.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(Exchange, "_learn", learnt)
    after, record = swap.attempt(module, lambda taken: Observer())
    assert not record.accepted
    assert (record.loss_grown is None, record.loss_after) == (half == 0, None)
    assert record.reason == "The exchange is undone: The loss on the evaluation text is nan."
    assert mean_loss(after.model, swap.inputs.held_out) == record.loss_without


def test_nothing_can_grow_where_nothing_is_gone():
    _, swap = exchange({"sparsity": 0.5})
    whole = PruningModule(copy.deepcopy(swap.inputs.dense), swap.inputs.family)
    assert swap.attempt(whole, lambda taken: Observer()) is None


def test_odd_steps_are_halved_too():
    assert halves(5) == (3, 2)


def test_what_is_protected_gives_up_nothing():
    module, swap = exchange({"sparsity": 0.5}, fraction=0.05)
    prune = swap.prune.model_copy(update={"protected_layers": [2, 3]})
    _, record = replace(swap, prune=prune).attempt(module, lambda taken: Observer())
    assert all(record.removed.values())
    assert not {layer for layers in record.removed.values() for layer in layers if layer >= 2}


def test_where_not_enough_could_go_nothing_comes():
    """All layers but one are protected, and that one is at its floor."""
    module, swap = exchange({"sparsity": 0.5})
    prune = swap.prune.model_copy(update={"protected_layers": [0, 1, 2], "minimum_per_layer": 4})
    assert replace(swap, prune=prune).attempt(module, lambda taken: Observer()) is None
