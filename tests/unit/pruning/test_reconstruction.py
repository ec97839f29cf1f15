"""Reconstruction on a trained model, where what was learned on some windows has to hold on others."""

import copy

import pytest
import torch

from sentinel.data.loaders.documents import load_documents
from sentinel.data.loaders.windows import pack_windows
from sentinel.data_spec import BuiltinData
from sentinel.models.evaluation import compare
from sentinel.models.loaders.load import load_model
from sentinel.pruning import reconstruction
from sentinel.pruning.repair import cut_and_compensate
from sentinel.spec import BuiltinModel
from sentinel.utils.metrics import kl_divergences
from tests.unit.pruning.tiny import CUT, calibrate

CUTS = {
    "attention": {"attention": {0: [1], 1: [0, 3], 2: [2]}},
    "mlp": {"mlp": {0: list(range(64)), 3: list(range(96))}},
}


@pytest.fixture(scope="module")
def trained():
    loaded = load_model(BuiltinModel(id="llama"), device="cpu", dtype="float32")
    loaded.model.requires_grad_(requires_grad=False)
    source = BuiltinData(sequence_length=64)
    texts = load_documents(source, allowed_roots=None)
    windows = [
        pack_windows(some, loaded.tokenizer, sequence_length=64, limit=limit)
        for some, limit in ((texts.train, 32), (texts.evaluation, 16))
    ]
    return loaded.model, *windows


@pytest.mark.parametrize("unit", CUTS)
def test_it_keeps_more_on_text_it_has_not_seen_than_the_closed_forms(trained, unit):
    model, windows, unseen = trained

    def divergence(compensation):
        cut = copy.deepcopy(model)
        cut_and_compensate(calibrate(cut, windows), CUTS[unit], compensation=compensation)
        return compare(model, cut, unseen).kl_to_dense

    none, own, residual, whole = map(divergence, (None, "least_squares", "residual_least_squares", "reconstruction"))
    assert whole < residual < none
    assert whole < own < none


def test_a_layer_says_what_was_mended_and_its_weights_are_frozen_again(model, windows, family):
    """The records hold against a plain run of the uncut and the repaired model."""
    before = copy.deepcopy(model)
    records = cut_and_compensate(calibrate(model, windows), CUT, compensation="reconstruction")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    of_layers = [record for record in records if record.unit == "layer"]
    assert [record.layer for record in of_layers] == [0, 1, 2]
    assert all(record.error_after < record.error_before for record in of_layers)
    wanted, found = (one(windows, output_hidden_states=True, use_cache=False) for one in (before, model))
    for record in of_layers[:-1]:
        h, h_cut = (run.hidden_states[record.layer + 1] for run in (wanted, found))
        assert record.error_after == pytest.approx(float((h - h_cut).square().sum() / h.square().sum()), rel=1e-3)
    assert of_layers[-1].error_after == pytest.approx(
        float(kl_divergences(wanted.logits, found.logits).mean()), rel=1e-3
    )


def test_queries_and_keys_are_fitted_too(model, windows, family):
    """The first layer's input is the uncut model's, so nothing but the fit of the layer can have changed them."""
    before = copy.deepcopy(model)
    cut_and_compensate(calibrate(model, windows), {"mlp": {0: list(range(24))}}, compensation="reconstruction")
    for old, new in zip(family.parts(before, 0, "attention"), family.parts(model, 0, "attention"), strict=True):
        assert not torch.equal(old.module.weight, new.module.weight)


def test_what_is_empty_is_passed_over(model, windows, family):
    every = list(range(family.counts(model, "mlp")[1]))
    cut = {"attention": {0: [0, 1, 2, 3], 1: [0, 1, 2, 3]}, "mlp": {1: every}}
    records = cut_and_compensate(calibrate(model, windows), cut, compensation="reconstruction")
    assert [(record.layer, record.unit) for record in records] == [
        (layer, unit) for layer in range(3) for unit in ("attention", "mlp", "layer")
    ]
    assert all(record.error_after <= record.error_before for record in records)


def test_weights_in_half_precision_are_fitted(model, windows):
    half = copy.deepcopy(model).bfloat16()
    records = cut_and_compensate(calibrate(half, windows), CUT, compensation="reconstruction")
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.parameters())
    *earlier, last = [record for record in records if record.unit == "layer"]
    assert all(record.error_after < record.error_before for record in earlier)
    # Predictions of a random model differ by about what the type can tell apart, so a fit of them may find nothing.
    assert last.error_after <= last.error_before


def test_it_is_the_same_every_time(model, windows):
    twice = [copy.deepcopy(model) for _ in range(2)]
    for copied in twice:
        cut_and_compensate(calibrate(copied, windows), CUT, compensation="reconstruction")
    first, second = (dict(copied.named_parameters()) for copied in twice)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_fit_that_held_out_windows_reject_is_not_taken(model, windows, monkeypatch):
    """Every look at the held-out windows but the first is made to say that things got worse."""
    looks = []

    def worse(fit):
        looks.append(fit)
        return torch.full_like(fit.held_out, len(looks), dtype=torch.float32)

    monkeypatch.setattr(reconstruction._Fit, "errors", worse)
    written = []
    write = reconstruction._Fit.write
    monkeypatch.setattr(reconstruction._Fit, "write", lambda fit, best: (written.append(best), write(fit, best)))
    cut_and_compensate(calibrate(model, windows), {"mlp": {2: list(range(24))}}, compensation="reconstruction")
    assert len(looks) == 2  # before and after one round
    assert all(not direction.any() for directions in written for direction in directions)
