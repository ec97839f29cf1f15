import pytest
import torch

from sentinel.pruning.stability.float32 import in_float32
from sentinel.pruning.stability.snapshot import Snapshot


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_and_gradients_come_back_in_their_type(model, windows, dtype):
    model.to(dtype).requires_grad_(True)
    parameters, before = list(model.parameters()), [p.detach().clone() for p in model.parameters()]
    with in_float32(parameters):
        assert {p.dtype for p in parameters} == {torch.float32}
        model(windows).logits.float().logsumexp(-1).mean().backward()
    assert all(
        torch.equal(p, old) and p.dtype == p.grad.dtype == dtype for p, old in zip(parameters, before, strict=True)
    )
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]


def test_a_snapshot_is_a_copy_to_go_back_to(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    snapshot = Snapshot(model.parameters())
    for parameter in model.parameters():
        parameter.data.mul_(2)
    doubled = {name: value.clone() for name, value in model.state_dict().items()}
    snapshot.restore()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for parameter in model.parameters():
        parameter.data.mul_(2)
    snapshot.take()
    for parameter in model.parameters():
        parameter.data.mul_(2)
    snapshot.restore()
    assert all(torch.equal(doubled[name], value) for name, value in model.state_dict().items())
