"""Sudden damage: a copy of a model loses its most important attention groups at once, and heals.

Cut out, not masked: what is gone cannot grow again while the rest learns. Nothing is repaired before the healing.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor
from transformers import PreTrainedModel

from sentinel.inputs import Domain
from sentinel.models.evaluation import mean_loss
from sentinel.models.families.base import Family
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.pruning.strategies import rank_groups
from sentinel.stress_result import CurvePoint, DamageArm, won_back
from sentinel.stress_spec import Damage


def damage_and_heal(
    model: PreTrainedModel,
    family: Family,
    own: Domain,
    *,
    calibration: Tensor,
    section: Damage,
    tuner: FineTuner,
    seed: int,
) -> DamageArm:
    """Cut, measure, heal, and measure on the way; the model itself stays as it is.

    Args:
        model: Of it a copy is damaged.
        family: Where its groups live.
        own: What it could do, and is healed on.
        calibration: (windows, sequence_length) tokens that importance is computed on.
        section: How much goes, by which score, and how often the loss is measured.
        tuner: Heals for `section.steps`.
        seed: Seeds the score and the order of the windows.

    Raises:
        TrainingDiverged, OutOfMemory: As `FineTuner.fine_tune` says.
        LossNotFinite: Before, behind or on the way.
    """
    patient = copy.deepcopy(model)
    measure = partial(mean_loss, patient, own.evaluation)
    before = measure()
    judged = Calibration(model=patient, family=family, units=("attention",), windows=calibration, seed=seed)
    removed = most_important(judged, section)
    apply_removal(patient, family, {"attention": removed})
    curve = _Curve(measure, [section.steps * point // section.points for point in range(1, section.points + 1)])
    healed = tuner.fine_tune(patient, own.training, seed=seed, observer=curve)
    curve.end(healed.steps)
    points = curve.points
    return DamageArm(
        removed=removed,
        before=before,
        curve=points,
        recovery=won_back(before=before, hurt=points[0].loss, after=points[-1].loss),
    )


def most_important(calibration: Calibration, section: Damage) -> dict[int, list[int]]:
    """Layer → the attention groups of the highest importance over all layers, ties by position; at least one."""
    sites = calibration.sites()
    if not sites:  # the model has no attention left
        return {}
    importances = [ranking.importance().tolist() for ranking in rank_groups(calibration, section.strategy)]
    groups = [
        (-importance, site.layer, group)
        for site, found in zip(sites, importances, strict=True)
        for group, importance in enumerate(found)
    ]
    chosen = sorted(groups)[: max(1, round(len(groups) * section.share))]
    return {
        layer: sorted(group for _, at, group in chosen if at == layer) for layer in sorted({at for _, at, _ in chosen})
    }


class _Curve(Observer):
    """Measures at once, and whenever one of some steps has been taken.

    Args:
        measure: Tells the loss of the model as it is.
        due: Steps, rising.
    """

    def __init__(self, measure: Callable[[], float], due: Sequence[int]) -> None:
        self._measure = measure
        self._due = [step for step in due if step]
        self.points = [CurvePoint(step=0, loss=measure())]

    def stepped(self, step: int, loss: float) -> None:  # noqa: ARG002 - a batch's loss
        """The next point, also where the step that was due was left out."""
        if self._due and step >= self._due[0]:
            self._add(step)

    def end(self, step: int) -> None:
        """The last point, if the last steps were left out."""
        if self._due:
            self._add(step)

    def _add(self, step: int) -> None:
        self._due = [other for other in self._due if other > step]
        self.points.append(CurvePoint(step=step, loss=self._measure()))
