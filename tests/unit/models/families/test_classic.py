"""What the laws' matrix does not show of the older architectures: heads' places, configs' views, layouts, refusals."""

import copy

import pytest
import torch
from transformers import Phi3Config

from sentinel.errors import ModelUnsupported
from sentinel.models.adaptive.gates import Gates
from sentinel.models.families import adaptations, family_of
from sentinel.models.loaders.load import load_model
from sentinel.models.optimized.export import export, resolve_form
from sentinel.spec import PathModel
from tests.unit.models.configs_classic import CONFIGS
from tests.unit.models.conftest import close, counts_of, make_loaded, make_tokenizer

ALIBI = ("bloom", "bloom-six-heads", "falcon-alibi", "falcon-grouped-alibi")


def config_of(name, **changes):
    return type(CONFIGS[name]).from_dict({**CONFIGS[name].to_dict(), **changes})


def masked_logits(model, family, removed, tokens):
    with torch.no_grad(), Gates(family.sites(model)) as gates:
        close(gates, removed)
        return model(tokens).logits


def remove(model, family, layer, group):
    present = range(family.counts(model, "attention")[layer])
    family.keep_groups(model, layer, "attention", [other for other in present if other != group])


@pytest.mark.parametrize("name", ALIBI)
def test_two_cuts_with_a_checkpoint_between_them_leave_each_head_its_slope(name, tokens, tmp_path):
    model, tokenizer, family = make_loaded(name)
    expected = masked_logits(model, family, {"attention": {1: [0, 2]}}, tokens)
    remove(model, family, 1, 0)
    kept = {unit: [list(range(n)) for n in counts] for unit, counts in counts_of(family, model).items()}
    kept["attention"][1] = [group + 1 for group in kept["attention"][1]]
    export(model, tokenizer, family=family, form="auto", dtype="float32", directory=tmp_path / "cut", kept=kept)
    reloaded = load_model(PathModel(path=str(tmp_path / "cut")), device="cpu", dtype="float32").model
    remove(reloaded, family, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(reloaded(tokens).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [name for name in ALIBI if name.startswith("falcon")])
def test_slopes_are_picked_where_they_are_not_in_the_attention_mask(name, tokens):
    model, _, family = make_loaded(name, attention="eager")
    expected = masked_logits(model, family, {"attention": {1: [0, 2]}}, tokens)
    remove(model, family, 1, 0)
    remove(model, family, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ALIBI)
def test_wrong_slopes_would_be_noticed(name, tokens):
    model, _, family = make_loaded(name)
    expected = masked_logits(model, family, {"attention": {1: [0]}}, tokens)
    remove(model, family, 1, 0)
    (adaptation,) = adaptations.found_in(model).values()
    adaptation["groups"] = [group - 1 for group in adaptation["groups"]]
    with torch.no_grad():
        assert (model(tokens).logits - expected).abs().max() > 1e-2


def test_a_cut_phi3_layer_follows_the_models_config(tokens):
    model, _, family = make_loaded("phi3")
    family.keep_groups(model, 1, "attention", [0, 3])
    original = copy.deepcopy(model)
    cut = model.model.layers[1].self_attn
    assert cut.config.num_attention_heads == 4
    assert model.config.num_attention_heads == 8
    model.set_attn_implementation("eager")
    assert cut.config._attn_implementation == "eager"
    assert original.model.layers[1].self_attn.config._attn_implementation == "sdpa"
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, original(tokens).logits)


@pytest.mark.parametrize(
    ("name", "groups", "group_width"),
    [
        ("falcon-alibi", 4, 8),
        ("falcon-multi-query", 1, 32),
        ("falcon-grouped", 4, 8),
        ("phi3", 4, 8),
        ("phi3-multi-query", 1, 32),
    ],
)
def test_a_group_is_a_kv_head_with_its_queries(name, groups, group_width):
    model, _, family = make_loaded(name)
    site = family.site(model, 0, "attention")
    assert (site.num_groups, site.group_width) == (groups, group_width)


def test_falcons_number_of_kv_heads_counts_only_in_the_new_architecture():
    family = family_of("falcon")
    assert family.dense_count(config_of("falcon-multi-query", num_kv_heads=4), "attention") == 1
    assert family.dense_count(config_of("falcon-rotary", num_kv_heads=2), "attention") == 4
    assert family.dense_count(config_of("falcon-grouped", num_kv_heads=2), "attention") == 2


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("bloom", {"pretraining_tp": 2, "slow_but_exact": True}, "slow_but_exact"),
        ("falcon-grouped", {"num_kv_heads": 3}, "8 query heads cannot share 3"),
        ("phi3", {"num_key_value_heads": 3}, "8 query heads cannot share 3"),
    ],
)
def test_variants_that_cannot_be_separated_are_refused(name, changes, reason):
    config = config_of(name, **changes)
    with pytest.raises(ModelUnsupported, match=reason):
        family_of(config.model_type).check_config(config)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_which_uniform_counts_a_stock_class_expresses(name):
    config, family = CONFIGS[name], family_of(CONFIGS[name].model_type)
    dense = {unit: [family.dense_count(config, unit)] * 3 for unit in ("attention", "mlp")}
    fewer_neurons = {**dense, "mlp": [16] * 3}
    assert resolve_form(config, dense, "auto") == "stock"
    assert resolve_form(config, fewer_neurons, "auto") == ("remote_code" if config.model_type == "bloom" else "stock")
    if dense["attention"][0] > 1:
        fewer_heads = {**dense, "attention": [dense["attention"][0] - 1] * 3}
        assert resolve_form(config, fewer_heads, "auto") == ("stock" if config.model_type == "phi3" else "remote_code")


@pytest.mark.parametrize("keep", [3, 2])
def test_phi3_with_long_rope_keeps_its_frequencies(keep, tokens, tmp_path):
    """The stock config compares their number with hidden size over heads, and so refuses some counts."""
    model, _, family = make_loaded("phi3")
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 5.0, "partial_rotary_factor": 1.0}
    rope |= {"short_factor": [1.0, 1.1], "long_factor": [2.0, 2.3]}
    config: Phi3Config = config_of("phi3", rope_parameters=rope, original_max_position_embeddings=12)
    model = type(model)(config).eval()
    for layer in range(3):
        family.keep_groups(model, layer, "attention", range(keep))
    kept = {unit: [list(range(n)) for n in counts] for unit, counts in counts_of(family, model).items()}
    form = export(
        model, make_tokenizer(), family=family, form="auto", dtype="float32", directory=tmp_path / "cut", kept=kept
    )
    assert form == ("stock" if keep == 3 else "remote_code")
    reloaded = load_model(PathModel(path=str(tmp_path / "cut")), device="cpu", dtype="float32").model
    with torch.no_grad():
        assert torch.equal(reloaded(tokens).logits, model(tokens).logits)


def test_a_config_may_say_that_there_are_no_neurons():
    assert family_of("gpt_neo").neurons(config_of("gpt_neo", intermediate_size=0)) == 0
    assert family_of("gptj").neurons(config_of("gptj", n_inner=0)) == 0
    assert family_of("gpt_neo").neurons(CONFIGS["gpt_neo"]) == 4 * 32
