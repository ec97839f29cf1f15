import pytest
import torch

from sentinel.pruning.stability.inspection import describe


@torch.no_grad()
def test_what_is_not_finite_is_named(model, family, windows):
    assert describe(model, windows) == "the weights, outputs and gradients of the model are finite"
    site = family.site(model, 1, "mlp")
    name = next(name for name, module in model.named_modules() if module is site.output)
    handle = site.output.register_forward_hook(lambda _, __, output: output / 0)
    assert describe(model, windows) == f"the first output that is not finite is that of {name}"
    handle.remove()
    site.output.weight[0, 0] = torch.nan
    assert describe(model, windows) == f"1 parameter(s) are not finite, the first is {name}.weight"
    assert not any(module._forward_hooks for module in model.modules())


def test_a_gradient_is_named_where_nothing_else_is_broken(model, windows):
    model.requires_grad_(True)
    model(windows).logits.sum().backward()
    name, parameter = list(model.named_parameters())[3]
    parameter.grad.view(-1)[0] = torch.inf
    assert describe(model, windows) == f"1 gradient(s) are not finite, the first is that of {name}"


def test_the_watch_ends_with_the_forward_pass(model):
    with pytest.raises(IndexError):
        describe(model, torch.full((1, 4), 10**6))
    assert not any(module._forward_hooks for module in model.modules())
