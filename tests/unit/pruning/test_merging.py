import pytest
import torch

from sentinel.models.families.base import output_bias, output_weight
from sentinel.models.hooks import inputs_of
from sentinel.pruning.merging import redundant, twins
from sentinel.pruning.pruning_module import PruningModule
from tests.unit.pruning.tiny import calibrate


@torch.no_grad()
def make_copy(model, family, unit, layer, *, group, of, factor):
    """Make a group a scaled copy of another: the same slices, but for a factor on what it puts out."""
    *inner, output = family.parts(model, layer, unit)
    count = family.site(model, layer, unit).num_groups
    for part in (*inner, output):
        to, source = (part.features([g], num_groups=count) for g in (group, of))
        for _, value, dim in part.tensors():
            value.index_copy_(dim, to, value.index_select(dim, source) * (factor if part is output else 1))


@pytest.mark.parametrize("unit", ["attention", "mlp"])
@pytest.mark.parametrize("factor", [0.5, -0.8])
def test_a_scaled_copy_goes_and_its_partner_takes_its_part(model, family, windows, unit, factor):
    make_copy(model, family, unit, 1, group=2, of=0, factor=factor)
    calibration = calibrate(model, windows, unit)
    found = twins(calibration, 0.999)
    (twin,) = found[1]
    assert (twin.group, twin.partner) == (2, 0)
    assert twin.cosine == pytest.approx(1 if factor > 0 else -1, abs=1e-6)
    before = model(input_ids=windows).logits
    PruningModule(model, family).cut(calibration, redundant(calibration, 0.999), compensation="least_squares")
    after = model(input_ids=windows).logits
    assert family.counts(model, unit)[1] == family.counts(model, unit)[0] - 1
    # The least ridge that a repair tries is 1e-4 of the mean diagonal.
    assert float((after - before).abs().max()) < 1e-3 * float(before.abs().max())


def test_without_the_repair_the_copy_would_be_missed(model, family, windows):
    make_copy(model, family, "attention", 1, group=2, of=0, factor=0.5)
    calibration = calibrate(model, windows, "attention")
    before = model(input_ids=windows).logits
    PruningModule(model, family).cut(calibration, redundant(calibration, 0.999), compensation=None)
    assert float((model(input_ids=windows).logits - before).abs().max()) > 1e-2 * float(before.abs().max())


def test_cosines_equal_their_definition(model, family, windows):
    """Of every pair, with outputs that are written out; centred where there is a bias."""
    calibration = calibrate(model, windows, "attention")
    for site, found in zip(calibration.sites(), twins(calibration, 1e-9), strict=True):
        seen = []
        with inputs_of(site.output, seen.append):
            model(input_ids=windows)
        weight = output_weight(site).detach().double()
        x = seen[0].flatten(0, 1).double()
        outputs = [x[:, s] @ weight[:, s].T for s in torch.arange(x.shape[1]).split(site.group_width)]
        if output_bias(site) is not None:
            outputs = [y - y.mean(0) for y in outputs]
        assert found
        for twin in found:
            y, z = outputs[twin.group], outputs[twin.partner]
            assert twin.cosine == pytest.approx(float((y * z).sum() / (y.norm() * z.norm())), abs=1e-4)
            assert y.norm() < z.norm()


def test_a_partner_stays_and_every_group_that_goes_has_one(model, family, windows):
    """Of three that are alike the strongest stays; the others lean on it or on nothing that goes."""
    make_copy(model, family, "attention", 0, group=1, of=0, factor=0.5)
    make_copy(model, family, "attention", 0, group=3, of=0, factor=0.25)
    found = twins(calibrate(model, windows, "attention"), 0.999)[0]
    going = {twin.group for twin in found}
    assert {twin.partner for twin in found}.isdisjoint(going)
    assert 0 not in going
    assert going <= {1, 3}
    assert going


def test_nothing_is_redundant_above_every_cosine(calibration):
    assert redundant(calibration, 1.0) == {}


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.1])
def test_a_cosine_that_cannot_be_is_refused(calibration, threshold):
    with pytest.raises(ValueError, match="cannot be asked for"):
        redundant(calibration, threshold)
