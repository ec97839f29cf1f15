import pytest
import torch

from sentinel.errors import ExportImpossible, ModelUnsupported
from sentinel.models.families import FAMILIES, family_of
from sentinel.models.families.base import Site, output_bias, output_weight, set_output
from tests.unit.models.conftest import CONFIGS, make_loaded


def test_an_unknown_type_names_the_supported_ones():
    with pytest.raises(ModelUnsupported, match=r"'bloom'.*gpt2, llama, mistral, qwen2"):
        family_of("bloom")


def test_every_type_has_one_family():
    types = [name for family in FAMILIES for name in family.model_types]
    assert len(types) == len(set(types))


def test_sites_describe_the_output_projection(variant):
    model, _, family = make_loaded(variant)
    config = CONFIGS[variant]
    for layer, site in enumerate(family.sites(model)):
        assert (site.unit, site.layer, site.num_groups) == ("attention", layer, family.dense_count(config))
        assert site.group_width == family.head_dim(config) * family.queries_per_kv_head(config)
        assert output_weight(site).shape == (config.hidden_size, site.num_groups * site.group_width)


def test_the_groups_weights_are_all_the_weights_once(variant):
    model, _, family = make_loaded(variant)
    parts = family.parts(model, 1)
    for index, part in enumerate(parts):
        slices = [family.group_weights(model, 1, g)[index] for g in range(family.counts(model)[1])]
        total = sum(w.square().sum() for w in slices)
        torch.testing.assert_close(total, part.module.weight.detach().square().sum())
        assert sum(w.numel() for w in slices) == part.module.weight.numel()


def test_keeping_groups_keeps_their_weights_in_order(variant):
    model, _, family = make_loaded(variant)
    kept = [family.group_weights(model, 0, group) for group in (1, 3)]
    family.keep_groups(model, 0, [1, 3])
    assert family.counts(model)[:2] == [2, family.dense_count(model.config)]
    for group, before in enumerate(kept):
        for old, new in zip(before, family.group_weights(model, 0, group), strict=True):
            assert torch.equal(old, new)


def test_cut_parameters_keep_type_and_training_state(variant):
    model, _, family = make_loaded(variant, dtype=torch.bfloat16)
    parts = family.parts(model, 0)
    parts[0].module.weight.requires_grad_(False)
    family.keep_groups(model, 0, [0])
    assert not parts[0].module.weight.requires_grad
    assert parts[-1].module.weight.requires_grad
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("keep", [[], [0, 0], [4], [-1]])
def test_impossible_selections_are_refused(keep):
    model, _, family = make_loaded("llama")
    with pytest.raises(ValueError, match="of a layer with 4"):
        family.keep_groups(model, 0, keep)


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
    model, _, family = make_loaded("qwen2")
    site = family.sites(model)[0]
    assert isinstance(site, Site)
    with pytest.raises(ValueError, match="has no bias"):
        set_output(site, weight=output_weight(site).detach().clone(), bias=torch.zeros(32))


def test_layer_overrides_and_counts_are_inverse(variant):
    config, family = CONFIGS[variant], family_of(CONFIGS[variant].model_type)
    assert [family.count_of(family.layer_overrides(config, n)) for n in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "count", "model_type"),
    [
        ("llama", 2, "llama"),
        ("llama", 3, "mistral"),
        ("mistral", 3, "mistral"),
        ("qwen2", 3, "qwen2"),
        ("gpt2", 4, "gpt2"),
    ],
)
def test_stock_configs(name, count, model_type):
    family = family_of(CONFIGS[name].model_type)
    stock = family.stock_config(CONFIGS[name], count)
    assert (stock.model_type, family.dense_count(stock)) == (model_type, count)
    assert family.head_dim(stock) == family.head_dim(CONFIGS[name])


@pytest.mark.parametrize(("name", "count"), [("gpt2", 3), ("llama-biased", 3)])
def test_what_no_stock_class_can_express(name, count):
    with pytest.raises(ExportImpossible):
        family_of(CONFIGS[name].model_type).stock_config(CONFIGS[name], count)


def test_unsupported_variants_are_refused():
    gpt2, llama = (type(CONFIGS[n]).from_dict(CONFIGS[n].to_dict()) for n in ("gpt2", "llama"))
    gpt2.add_cross_attention = True
    llama.num_key_value_heads = 3
    for config, match in ((gpt2, "cross attention"), (llama, "evenly")):
        with pytest.raises(ModelUnsupported, match=match):
            family_of(config.model_type).check_config(config)
