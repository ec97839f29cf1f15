import copy

import pytest
import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.models.families import family_of
from sentinel.models.families.base import output_bias, output_weight
from sentinel.pruning.calibration import LayerwisePass, token_batches, watch_inputs
from sentinel.pruning.pruning_module import PruningModule

SELECTION = {0: [1], 1: [0, 3], 2: [2]}


@pytest.fixture
def family(model):
    return family_of(model.config.model_type)


def masked_logits(model, family, windows, removed):
    sites = family.sites(model)
    with Gates(sites) as gates:
        for layer, groups in removed.items():
            for group in groups:
                gates.close(layer, group)
        return model(input_ids=windows).logits


def test_a_cut_equals_the_mask_and_remembers_dense_indices(model, family, windows):
    dense = copy.deepcopy(model)
    module = PruningModule(model, family)
    assert module.cut(SELECTION) == {0: [1], 1: [0, 3], 2: [2]}
    assert module.cut({1: [0]}) == {1: [1]}
    assert module.kept == [[0, 2, 3], [2], [0, 1, 3]]
    assert module.removed == {0: [1], 1: [0, 1, 3], 2: [2]}
    assert module.sparsity == pytest.approx(5 / 12)
    expected = masked_logits(dense, family, windows, module.removed)
    assert (model(input_ids=windows).logits - expected).abs().max() <= 1e-5


def test_kept_groups_rebuild_the_same_shapes(model, family, windows):
    dense = copy.deepcopy(model)
    module = PruningModule(model, family)
    module.cut(SELECTION)
    rebuilt = PruningModule(dense, family, kept=module.kept)
    assert rebuilt.removed == module.removed
    assert torch.equal(rebuilt.model(input_ids=windows).logits, model(input_ids=windows).logits)


def test_layer_by_layer_equals_the_whole_model(model, family, windows):
    seen = []
    handle = watch_inputs(family.layers(model)[2], seen.append)
    model(input_ids=windows)
    handle.remove()
    layerwise = LayerwisePass(model, family.layers(model), token_batches(windows))
    layerwise.advance(0)
    layerwise.advance(1)
    last = model(input_ids=windows, output_hidden_states=True).hidden_states
    assert torch.equal(torch.cat(layerwise._hidden), seen[0])
    assert torch.cat(layerwise.run(2)).shape == last[-1].shape


def test_compensation_is_measured_on_the_pruned_prefix(model, family, windows):
    """Each record equals the output error of its layer, measured by definition behind the cut layers before it."""
    dense = copy.deepcopy(model)
    module = PruningModule(model, family)
    removed, records = module.cut_and_compensate(SELECTION, windows)
    assert removed == SELECTION
    for record in records:
        prefix = copy.deepcopy(dense)
        for layer in range(record.layer):
            _take_over(prefix, model, family, layer, module.kept[layer])
        inputs = []
        handle = watch_inputs(family.sites(prefix)[record.layer].output, inputs.append)
        prefix(input_ids=windows)
        handle.remove()
        site, cut = family.sites(prefix)[record.layer], family.sites(model)[record.layer]
        x = torch.cat(inputs).flatten(0, 1).double()
        columns = torch.zeros(site.num_groups, dtype=torch.bool)
        columns[module.kept[record.layer]] = True
        x_kept = x[:, columns.repeat_interleave(site.group_width)]
        target = x @ output_weight(site).double().T
        shift = 0 if output_bias(site) is None else (output_bias(cut) - output_bias(site)).double()
        error = (target - x_kept @ output_weight(cut).double().T - shift).square().sum() / target.square().sum()
        assert float(error) == pytest.approx(record.error_after, rel=1e-3)
        assert record.error_after <= record.error_before


def _take_over(prefix, model, family, layer, kept):
    family.keep_groups(prefix, layer, kept)
    prefix_layer, model_layer = family.layers(prefix)[layer], family.layers(model)[layer]
    prefix_layer.load_state_dict(model_layer.state_dict())


def test_compensation_lowers_the_damage(model, family, windows):
    reference = model(input_ids=windows).logits
    plain, repaired = copy.deepcopy(model), copy.deepcopy(model)
    PruningModule(plain, family).cut(SELECTION)
    PruningModule(repaired, family).cut_and_compensate(SELECTION, windows)

    def damage(pruned):
        return float((pruned(input_ids=windows).logits - reference).square().mean())

    assert damage(repaired) < damage(plain)


def test_selection_reaches_the_sparsity_over_several_cuts(model, family, windows):
    module = PruningModule(model, family)
    for sparsity in (0.25, 0.5):
        selection = module.select(
            windows, strategy="taylor", sparsity=sparsity, allocation="global", minimum_per_layer=1, seed=0
        )
        module.cut(selection)
        assert module.sparsity == pytest.approx(sparsity)
