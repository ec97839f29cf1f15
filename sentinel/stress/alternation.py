"""Forgetting and recovery: a copy of a model learns another domain and its own in turn.

Each training starts with a fresh optimiser. Knows two texts; nothing of how the model was made.
"""

import copy
from collections.abc import Mapping

from transformers import PreTrainedModel

from sentinel.inputs import Domain
from sentinel.models.evaluation import mean_loss
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.stress_result import AlternationArm, Leg, won_back


def alternate(
    model: PreTrainedModel, own: Domain, other: Domain, *, tuner: FineTuner, rounds: int, seed: int
) -> AlternationArm:
    """Learn `other`, then `own`, `rounds` times; the model itself stays as it is.

    Args:
        model: Of it a copy learns.
        own: What it could do.
        other: What it shall learn.
        tuner: Trains for one turn.
        rounds: How often both come in turn.
        seed: Seeds the order of the windows, which is another one in each turn.

    Raises:
        TrainingDiverged, OutOfMemory: As `FineTuner.fine_tune` says.
        LossNotFinite: Behind a turn.
    """
    learner, domains = copy.deepcopy(model), {own.name: own, other.name: other}
    start = _losses(learner, domains)
    legs: list[Leg] = []
    for number in range(1, rounds + 1):
        for domain in (other, own):
            tuner.fine_tune(learner, domain.training, seed=seed + len(legs))
            legs.append(Leg(round=number, domain=domain.name, losses=_losses(learner, domains)))
    losses = [start[own.name], *(leg.losses[own.name] for leg in legs)]
    turns = list(zip(losses[:-1:2], losses[1::2], losses[2::2], strict=True))
    return AlternationArm(
        start=start,
        legs=legs,
        forgetting=[hurt - before for before, hurt, _ in turns],
        recovery=[won_back(before=before, hurt=hurt, after=after) for before, hurt, after in turns],
    )


def _losses(model: PreTrainedModel, domains: Mapping[str, Domain]) -> dict[str, float]:
    return {name: mean_loss(model, domain.evaluation) for name, domain in domains.items()}
