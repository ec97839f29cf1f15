"""Reconstruction on a trained model, where what was learned on some windows has to hold on others."""

import copy

import pytest
import torch

from sentinel.data.loaders.documents import load_documents
from sentinel.data.loaders.windows import pack_windows
from sentinel.models.evaluation import compare
from sentinel.models.loaders.load import load_model
from sentinel.pruning import reconstruction
from sentinel.pruning.calibration import LayerwisePass
from sentinel.pruning.compensation import repair_stream, run_uncut
from sentinel.pruning.reconstruction import fit_unit
from sentinel.pruning.repair import cut_and_compensate
from sentinel.spec import BuiltinData, BuiltinModel
from tests.unit.pruning.tiny import CUT, calibrate

CUTS = {
    "attention": {"attention": {0: [1], 1: [0, 3], 2: [2]}},
    "mlp": {"mlp": {0: list(range(64)), 3: list(range(96))}},
}


@pytest.fixture(scope="module")
def trained():
    loaded = load_model(BuiltinModel(id="llama"), device="cpu", dtype="float32")
    loaded.model.requires_grad_(False)
    source = BuiltinData(sequence_length=64)
    texts = load_documents(source, allowed_roots=None)
    windows = [
        pack_windows(some, loaded.tokenizer, sequence_length=64, limit=limit)
        for some, limit in ((texts.train, 512), (texts.evaluation, 32))
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


def test_attention_patterns_stay_and_the_weights_are_frozen_again(model, windows, family):
    before = copy.deepcopy(model)
    calibration = calibrate(model, windows)
    stream, uncut = LayerwisePass(calibration), LayerwisePass(calibration)
    (attention, mlp) = repair_stream(
        calibration, 0, {"attention": {0: [1]}}, stream, run_uncut(calibration, 0, uncut), fit=fit_unit
    )
    assert (attention.unit, mlp.unit) == ("attention", "mlp")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    module, values = family.value_features(model, 0)
    parts = list(zip(family.parts(before, 0, "attention")[:-1], family.parts(model, 0, "attention")[:-1], strict=True))
    for old, new in parts:
        kept = old.features([0, 2, 3], num_groups=4)
        start, end = (part.module.weight if part.weight_dim == 0 else part.module.weight.T for part in (old, new))
        fitted = torch.zeros(len(end), dtype=torch.bool)
        if new.module is module:
            fitted[values] = True
        # The first layer's input is the uncut model's, so nothing is mapped back there.
        torch.testing.assert_close(end[~fitted], start[kept][~fitted], atol=1e-4, rtol=1e-4)
        assert not fitted.any() or not torch.allclose(end[fitted], start[kept][fitted], atol=1e-2)


def test_it_is_the_same_every_time(model, windows):
    twice = [copy.deepcopy(model) for _ in range(2)]
    for copied in twice:
        cut_and_compensate(calibrate(copied, windows), CUT, compensation="reconstruction")
    first, second = (dict(copied.named_parameters()) for copied in twice)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_fit_that_held_out_windows_reject_is_not_taken(model, windows, monkeypatch):
    """Every look at the held-out windows but the first is made to say that things got worse."""
    measured = reconstruction._Fit.held_out_error
    looks = []

    def worse(fit):
        looks.append(measured(fit))
        return float(len(looks))

    monkeypatch.setattr(reconstruction._Fit, "held_out_error", worse)
    written = []
    write = reconstruction._Fit.write
    monkeypatch.setattr(reconstruction._Fit, "write", lambda fit, best: (written.append(best), write(fit, best)))
    cut_and_compensate(calibrate(model, windows), {"mlp": {2: list(range(24))}}, compensation="reconstruction")
    assert len(looks) == 4  # before and after one round, for attention and for the MLP
    assert all(not direction.any() for directions in written for direction in directions)
