"""How a tiny model is healed, and who listens."""

import torch

from sentinel.heal_spec import Heal
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.pruning.fine_tuning.observer import Observer

QUICK = {"steps": 12, "batch_tokens": 72, "learning_rate": 3e-3}


class Recorder(Observer):
    """Writes down all that it hears."""

    def __init__(self, on_step):
        self.losses, self.measurements, self.notices = {}, {}, []
        self.on_step = on_step

    def stepped(self, step, loss):
        self.losses[step] = loss
        self.on_step(step)

    def measured(self, step, loss):
        self.measurements[step] = loss

    def noticed(self, text):
        self.notices.append(text)


def heal(
    model,
    dense,
    windows,
    *,
    seed=1,
    held_out=None,
    factors=None,
    factor_warmup=0,
    keeper=None,
    resume=None,
    on_step=None,
    until=lambda: False,
    **settings,
):
    """Heals `model`; what was heard, and how it went."""
    recorder = Recorder(on_step or (lambda _: None))
    tuner = FineTuner(heal=Heal(**{**QUICK, **settings}), dense=dense)
    healed = tuner.fine_tune(
        model,
        windows,
        seed=seed,
        held_out=held_out,
        factors=factors,
        factor_warmup=factor_warmup,
        observer=recorder,
        keeper=keeper,
        resume=resume,
        until=until,
    )
    return recorder, healed


def same_weights(one, other):
    """Bit for bit."""
    theirs = other.state_dict()
    return all(value.equal(theirs[name]) for name, value in one.state_dict().items())


def ruin(weight):
    """Something went wrong for good."""
    weight.copy_(5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(6)))
