import pytest
import torch

from sentinel.models.evaluation import compare, mean_loss
from sentinel.stress.domains import on_domain


def test_a_domain_is_measured_as_evaluation_is(inputs, pruned):
    windows = inputs.evaluation[:8]
    found = on_domain(inputs.dense, pruned, windows, name="data", text="stories")
    expected = compare(inputs.dense, pruned, windows)
    assert (found.dense_loss, found.pruned_loss) == (expected.dense_loss, expected.pruned_loss)
    assert (found.kl_to_dense, found.agreement) == (expected.kl_to_dense, expected.agreement)
    assert (found.windows, found.sequence_length, found.text) == (8, 64, "stories")
    assert found.pruned_loss == pytest.approx(mean_loss(pruned, windows))


def test_the_increase_has_the_standard_error_of_its_windows(inputs, pruned):
    windows = inputs.evaluation[:8]
    found = on_domain(inputs.dense, pruned, windows, name="data", text="")
    each = torch.tensor([mean_loss(pruned, one) - mean_loss(inputs.dense, one) for one in windows.split(1)])
    assert found.increase == pytest.approx(found.pruned_loss - found.dense_loss)
    assert found.increase == pytest.approx(float(each.mean()), rel=1e-5)
    assert found.increase_stderr == pytest.approx(float(each.std()) / 8**0.5, rel=1e-4)
    assert on_domain(inputs.dense, pruned, windows[:1], name="data", text="").increase_stderr is None
