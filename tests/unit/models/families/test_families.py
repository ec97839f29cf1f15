from pathlib import Path

import pytest
import torch

from sentinel.errors import ExportImpossible, ModelUnsupported
from sentinel.models.families import FAMILIES, family_of
from sentinel.models.families.base import Site, output_bias, output_weight, set_output
from tests.unit.models.conftest import CONFIGS, UNITS, make_loaded


def test_an_unknown_type_names_the_supported_ones():
    with pytest.raises(ModelUnsupported, match=r"'mamba'.*gpt2, .*llama, .*qwen3"):
        family_of("mamba")


def test_every_type_has_one_family():
    types = [name for family in FAMILIES for name in family.model_types]
    assert len(types) == len(set(types))


def test_sites_describe_the_output_projections(variant):
    model, _, family = make_loaded(variant)
    config = CONFIGS[variant]
    sites = family.sites(model)
    assert [(site.layer, site.unit) for site in sites] == [(layer, unit) for layer in range(3) for unit in UNITS]
    for site in sites:
        assert site.num_groups == family.dense_count(config, site.unit)
        width = family.head_dim(config) * family.queries_per_kv_head(config) if site.unit == "attention" else 1
        assert site.group_width == width
        assert output_weight(site).shape == (config.hidden_size, site.num_groups * site.group_width)


@pytest.mark.parametrize("unit", UNITS)
def test_the_groups_weights_are_all_the_weights_once(variant, unit):
    model, _, family = make_loaded(variant)
    site, parts = family.site(model, 1, unit), family.parts(model, 1, unit)
    groups = [family.group_weights(model, site, group) for group in range(site.num_groups)]
    for part, slices in zip(parts, zip(*groups, strict=True), strict=True):
        weights = [p for name, p in part.module.named_parameters() if name.endswith("weight")]
        total = sum(w.square().sum() for w in slices)
        torch.testing.assert_close(total, sum(w.detach().square().sum() for w in weights))
        assert sum(w.numel() for w in slices) == sum(w.numel() for w in weights)


@pytest.mark.parametrize("unit", UNITS)
def test_keeping_groups_keeps_their_weights_in_order(variant, unit):
    model, _, family = make_loaded(variant)
    kept = [family.group_weights(model, family.site(model, 0, unit), group) for group in (1, 3)]
    family.keep_groups(model, 0, unit, [1, 3])
    assert family.counts(model, unit)[:2] == [2, family.dense_count(model.config, unit)]
    for group, before in enumerate(kept):
        for old, new in zip(before, family.group_weights(model, family.site(model, 0, unit), group), strict=True):
            assert torch.equal(old, new)


@pytest.mark.parametrize("unit", UNITS)
def test_cut_parameters_keep_type_and_training_state(variant, unit):
    model, _, family = make_loaded(variant, dtype=torch.bfloat16)
    first, *_, last = family.parts(model, 0, unit)
    first.module.requires_grad_(False)
    family.keep_groups(model, 0, unit, [0])
    assert not any(p.requires_grad for p in first.module.parameters())
    assert last.module.weight.requires_grad
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("keep", [[4], [-1]])
def test_impossible_selections_are_refused(keep):
    model, _, family = make_loaded("llama-gqa")
    with pytest.raises(ValueError, match="of a layer with 4"):
        family.keep_groups(model, 0, "attention", keep)


def test_the_output_projection_can_be_overwritten(variant, tokens):
    model, _, family = make_loaded(variant)
    site = family.sites(model)[0]
    weight = torch.randn_like(output_weight(site))
    bias = None if output_bias(site) is None else torch.randn_like(output_bias(site))
    set_output(site, weight=weight, bias=bias)
    x = torch.randn(2, 5, weight.shape[1])
    expected = x @ weight.T + (0 if bias is None else bias)
    torch.testing.assert_close(site.output(x), expected)


def test_a_bias_cannot_be_set_where_there_is_none():
    model, _, family = make_loaded("qwen2-gqa")
    site = family.sites(model)[0]
    assert isinstance(site, Site)
    with pytest.raises(ValueError, match="has no bias"):
        set_output(site, weight=output_weight(site).detach().clone(), bias=torch.zeros(32))


@pytest.mark.parametrize("counts", [(1, 2), (3, 0), (0, 7), (0, 0)])
def test_layer_overrides_and_counts_are_inverse(variant, counts):
    config, family = CONFIGS[variant], family_of(CONFIGS[variant].model_type)
    wanted = dict(zip(UNITS, counts, strict=True))
    assert family.counts_of(config, family.layer_overrides(config, wanted)) == wanted
    dense = {unit: family.dense_count(config, unit) for unit in UNITS}
    assert family.layer_overrides(config, dense) == {}


@pytest.mark.parametrize(
    ("name", "groups", "model_type"),
    [
        ("llama-gqa", 2, "llama"),
        ("llama-gqa", 3, "mistral"),
        ("gpt2", 4, "gpt2"),
        ("olmo2-gqa", 4, "olmo2"),
        ("gemma2-gqa", 2, "gemma2"),
        ("phi-gqa-normed", 4, "phi"),
        *((f"{name}-gqa", 3, name) for name in ("mistral", "qwen2", "qwen3", "gemma", "granite", "cohere", "smollm3")),
        ("starcoder2-gqa", 3, "starcoder2"),
        ("cohere-gqa-normed", 3, "cohere"),
        ("phi-gqa", 3, "phi"),
    ],
)
def test_stock_configs(name, groups, model_type):
    family = family_of(CONFIGS[name].model_type)
    stock = family.stock_config(CONFIGS[name], {"attention": groups, "mlp": 40})
    assert stock.model_type == model_type
    assert [family.dense_count(stock, unit) for unit in UNITS] == [groups, 40]
    assert family.head_dim(stock) == family.head_dim(CONFIGS[name])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt2", "3 heads"),
        ("llama-gqa-biased", "biases"),
        ("gemma2-gqa", "not a multiple"),
        ("gemma3-gqa", "not a multiple"),
        ("olmo2-gqa", "normalises"),
        ("stablelm-gqa", "6 heads"),
        ("phi-gqa-normed", "qk_layernorm"),
    ],
)
def test_what_no_stock_class_can_express(name, reason):
    config = CONFIGS[name]
    family = family_of(config.model_type)
    with pytest.raises(ExportImpossible, match=reason):
        family.stock_config(config, {"attention": 3, "mlp": family.dense_count(config, "mlp")})


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("gpt2", {"add_cross_attention": True}, "cross attention"),
        ("llama-gqa", {"num_key_value_heads": 3}, "evenly"),
        ("gemma3-gqa", {"use_bidirectional_attention": True}, "encoder"),
    ],
)
def test_unsupported_variants_are_refused(name, changes, match):
    config = type(CONFIGS[name]).from_dict(CONFIGS[name].to_dict())
    for key, value in changes.items():
        setattr(config, key, value)
    with pytest.raises(ModelUnsupported, match=match):
        family_of(config.model_type).check_config(config)


def test_the_documentation_lists_every_type():
    page = (Path(__file__).parents[4] / "docs" / "families.md").read_text()
    listed = [row.split("`")[1] for row in page.splitlines() if row.startswith("| `") and "`model_type`" not in row]
    assert listed == sorted(name for family in FAMILIES for name in family.model_types)
