"""AdamW and its rate: which weights decay, how the rate moves, which slices learn faster.

The optimiser is torch's, the schedules are transformers'.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, get_scheduler

from sentinel.heal_spec import Heal
from sentinel.models.families.base import Family, Unit

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
BETAS = (0.9, 0.95)


def optimizer_of(heal: Heal, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW in one pass over the numbers (`fused`); matrices decay, gains and biases have no scale to shrink."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": heal.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=heal.learning_rate, betas=BETAS, fused=True
    )


def scheduler_of(heal: Heal, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Up linearly from zero, then as `heal.schedule` says, over so many steps."""
    return get_scheduler(
        SCHEDULES[heal.schedule], optimizer, num_warmup_steps=heal.rise(steps), num_training_steps=steps
    )


def set_rates(optimizer: torch.optim.Optimizer, scheduler: LambdaLR) -> None:
    """Give the optimiser the rates of its next step, where the schedule was changed in between."""
    for group, peak, share in zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        group["lr"] = peak * share(scheduler.last_epoch)


@contextmanager
def faster(factors: Mapping[nn.Parameter, Tensor], *, share: float = 1.0) -> Iterator[None]:
    """Multiply what an optimiser's step inside the context changes in some slices of some parameters.

    Scaling their gradients would not do: AdamW divides that out again.

    Args:
        factors: Per parameter how much faster each of its numbers learns, in a shape that broadcasts to it.
        share: How much of that there is by now: 0 leaves everything as fast as the rest.
    """
    before = {parameter: parameter.detach().clone() for parameter in factors}
    yield
    with torch.no_grad():
        for parameter, old in before.items():
            parameter.copy_(old + (1 + share * (factors[parameter] - 1)) * (parameter - old))


def factors_of_groups(
    model: PreTrainedModel, family: Family, groups: Mapping[Unit, Mapping[int, Sequence[int]]], factor: float
) -> dict[nn.Parameter, Tensor]:
    """What `faster` takes, so that some groups learn `factor` times as fast as the rest.

    Args:
        model: As it is now.
        family: Where its groups live.
        groups: Unit → layer → groups, by their index in the layer as it is now.
        factor: Of their learning rate.
    """
    factors: dict[nn.Parameter, Tensor] = {}
    for unit, layers in groups.items():
        for layer, chosen in layers.items():
            count = family.site(model, layer, unit).num_groups
            for part in family.parts(model, layer, unit):
                features = part.features(chosen, num_groups=count)
                for _, parameter, dim in part.tensors():
                    shape = [size if axis == dim else 1 for axis, size in enumerate(parameter.shape)]
                    faster_ones = features.to(parameter.device)
                    factors[parameter] = parameter.new_ones(shape).index_fill_(dim, faster_ones, factor)
    return factors
