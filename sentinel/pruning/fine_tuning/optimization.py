"""AdamW and its rate: which weights decay, how the rate moves, which slices learn faster.

The optimiser is torch's, the schedules are transformers'.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from sentinel.heal_spec import Heal

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
BETAS = (0.9, 0.95)


def optimizer_of(heal: Heal, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW, fused on a GPU; matrices decay, gains and biases have no scale to shrink."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": heal.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=heal.learning_rate,
        betas=BETAS,
        fused=parameters[0].device.type == "cuda",
    )


def scheduler_of(heal: Heal, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Up linearly from zero, then as `heal.schedule` says, over so many steps."""
    warmup = round(heal.warmup_fraction * steps)
    return get_scheduler(SCHEDULES[heal.schedule], optimizer, num_warmup_steps=warmup, num_training_steps=steps)


@contextmanager
def faster(factors: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Multiply what an optimiser's step inside the context changes in some slices of some parameters.

    Scaling their gradients would not do: AdamW divides that out again.

    Args:
        factors: Per parameter how much faster each of its numbers learns, in a shape that broadcasts to it.
    """
    before = {parameter: parameter.detach().clone() for parameter in factors}
    yield
    with torch.no_grad():
        for parameter, old in before.items():
            parameter.copy_(old + factors[parameter] * (parameter - old))
