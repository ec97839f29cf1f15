"""Law 6: a group that comes back changes no logit, in any family; and it can learn."""

import copy

import pytest
import torch

from sentinel.errors import ExportImpossible, ModelUnsupported
from sentinel.models.loaders.load import load_model
from sentinel.models.loaders.weights import load_weights
from sentinel.models.optimized.export import export
from sentinel.models.optimized.insertion import insert_groups
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.pruning_module import PruningModule
from sentinel.spec import PathModel
from tests.unit.models.conftest import CONFIGS, UNITS, VARIANTS, make_loaded, make_tokenizer, survivors

TOKENS = torch.randint(1, 30, (2, 9), generator=torch.Generator().manual_seed(2))


def cut_and_trained(variant):
    """The dense model and one that lost groups, a layer all of them, and whose weights have moved since."""
    dense, _, family = make_loaded(variant)
    groups, neurons = (range(family.dense_count(dense.config, unit)) for unit in UNITS)
    removed = {"attention": {0: [0], 1: groups}, "mlp": {0: [1, 5], 2: neurons}}
    model = copy.deepcopy(dense)
    kept = survivors(family, model, removed)
    apply_removal(model, family, removed)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.05 * torch.rand(parameter.shape, generator=generator))
    return model, dense, family, kept


@pytest.mark.parametrize("variant", CONFIGS)
def test_law_6_a_group_that_comes_back_changes_no_logit(variant):
    model, dense, family, kept = cut_and_trained(variant)
    before, untouched = model(TOKENS).logits.detach(), dense(TOKENS).logits.detach()
    last = family.dense_count(dense.config, "attention") - 1
    grown = {"attention": {0: [0], 1: [last]}, "mlp": {0: [5], 2: [0, 7]}}
    bigger, after = insert_groups(model, dense, family, kept=kept, grown=grown)
    assert (bigger(TOKENS).logits - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    assert after["attention"][1] == [last]
    assert after["mlp"][0] == sorted({*kept["mlp"][0], 5})
    assert {unit: family.counts(bigger, unit) for unit in UNITS} == {u: list(map(len, after[u])) for u in UNITS}
    assert torch.equal(model(TOKENS).logits, before)
    assert torch.equal(dense(TOKENS).logits, untouched)


def test_it_has_its_removed_weights_but_no_output_and_a_step_moves_that():
    model, dense, family, kept = cut_and_trained("llama-gqa")
    bigger, after = insert_groups(model, dense, family, kept=kept, grown={"mlp": {0: [5]}})
    place = after["mlp"][0].index(5)
    *inner, output = (part.weight_of(place, num_groups=len(after["mlp"][0])) for part in family.parts(bigger, 0, "mlp"))
    neurons = family.dense_count(dense.config, "mlp")
    expected = [part.weight_of(5, num_groups=neurons) for part in family.parts(dense, 0, "mlp")]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(inner, expected, strict=False))
    assert not output.any()
    weight = family.parts(bigger, 0, "mlp")[-1].module.weight.requires_grad_(True)
    bigger(TOKENS).logits.logsumexp(-1).sum().backward()
    assert weight.grad[:, place].abs().sum() > 0


def with_more_than_ever(variant):
    """A cut and trained model, and the same with two heads and one neuron more than the dense one in its layer 2."""
    model, dense, family, kept = cut_and_trained(variant)
    heads, neurons = (family.dense_count(dense.config, unit) for unit in UNITS)
    grown = {"attention": {2: [heads, heads + 1]}, "mlp": {1: [neurons]}}
    return model, dense, family, insert_groups(model, dense, family, kept=kept, grown=grown)


@pytest.mark.parametrize("variant", [name for name in CONFIGS if name != "falcon-multi-query"])
def test_law_6_a_layer_may_have_more_groups_than_it_ever_had(variant):
    model, dense, family, (bigger, after) = with_more_than_ever(variant)
    before = model(TOKENS).logits.detach()
    assert (bigger(TOKENS).logits - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    assert {unit: family.counts(bigger, unit) for unit in UNITS} == {u: list(map(len, after[u])) for u in UNITS}
    heads, neurons = (family.dense_count(dense.config, unit) for unit in UNITS)
    assert family.counts(bigger, "attention")[2] == heads + 2
    assert family.counts(bigger, "mlp")[1] == neurons + 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_with_more_groups_is_saved_and_loaded(variant, tmp_path):
    _, _, family, (bigger, after) = with_more_than_ever(variant)
    arguments = {"family": family, "dtype": "float32", "directory": tmp_path / "checkpoint", "kept": after}
    assert export(bigger, make_tokenizer(), form="auto", **arguments) == "remote_code"
    source = PathModel(source="path", path=str(arguments["directory"]))
    loaded = load_model(source, device="cpu", dtype="float32")
    assert torch.equal(loaded.model(TOKENS).logits, bigger(TOKENS).logits)
    with pytest.raises(ExportImpossible, match="more groups than"):
        export(bigger, make_tokenizer(), form="masked", **arguments)


def with_exchanged(variant):
    """A model whose layer 0 has a new head in the place of a lost one, whose layer 1 got one back; 2 stayed whole."""
    dense, _, family = make_loaded(variant)
    heads, neurons = (family.dense_count(dense.config, unit) for unit in UNITS)
    removed = {"attention": {0: [0], 1: range(min(heads, 2))}, "mlp": {1: range(8)}}
    new = heads if family.may_exceed(dense.config, "attention") else 0
    model, kept = copy.deepcopy(dense), survivors(family, dense, removed)
    apply_removal(model, family, removed)
    grown = {"attention": {0: [new], 1: [0]}, "mlp": {0: [neurons], 1: [0, 1]}}
    return dense, family, *insert_groups(model, dense, family, kept=kept, grown=grown)


@pytest.mark.parametrize("variant", CONFIGS)
def test_a_model_with_exchanged_groups_is_saved_and_loaded_by_itself_and_into_its_like(variant, tmp_path):
    dense, family, model, kept = with_exchanged(variant)
    form = export(
        model, make_tokenizer(), family=family, form="auto", dtype="float32", directory=tmp_path / "model", kept=kept
    )
    assert form == "remote_code"
    loaded = load_model(PathModel(path=str(tmp_path / "model")), device="cpu", dtype="float32").model
    assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
    alike = PruningModule(dense, family, kept=kept).model
    load_weights(tmp_path / "model", alike)
    assert torch.equal(alike(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize("variant", ["falcon-alibi", "olmo2-gqa", "llama-gqa"])
def test_heads_whose_places_matter_are_not_exported_as_stock_after_an_exchange(variant, tmp_path):
    dense, _, family = make_loaded(variant)
    heads = family.dense_count(dense.config, "attention")
    removed = {"attention": {0: [0]}}
    model, kept = copy.deepcopy(dense), survivors(family, dense, removed)
    apply_removal(model, family, removed)
    model, kept = insert_groups(model, dense, family, kept=kept, grown={"attention": {0: [heads]}})
    arguments = {"family": family, "dtype": "float32", "directory": tmp_path / "model", "kept": kept}
    form = export(model, make_tokenizer(), form="auto", **arguments)
    assert form == ("stock" if variant == "llama-gqa" else "remote_code")
    loaded = load_model(PathModel(path=str(tmp_path / "model")), device="cpu", dtype="float32").model
    assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
    if form == "remote_code":
        with pytest.raises(ExportImpossible, match=r"layers \[0\] come from other places"):
            export(model, make_tokenizer(), form="stock", **arguments)


def test_a_class_with_one_kv_head_takes_no_second():
    with pytest.raises(ModelUnsupported, match="one attention group at most"):
        with_more_than_ever("falcon-multi-query")


@pytest.mark.parametrize("groups", [[0], [1, 1]])
def test_what_is_there_is_refused(groups):
    model, dense, family, kept = cut_and_trained("llama-gqa")
    with pytest.raises(ValueError, match="already"):
        insert_groups(model, dense, family, kept=kept, grown={"mlp": {0: groups}})
