"""How the target sparsity rises over the cycles."""

from typing import Literal

ScheduleName = Literal["one_shot", "linear", "cubic"]


def sparsity_at(cycle: int, *, cycles: int, target: float, schedule: ScheduleName) -> float:
    """Target sparsity after `cycle`, counted from 1; always `target` at the last cycle.

    `cubic` is s·(1 − (1 − c/C)³): most is removed early, while the model is most redundant
    and the most cycles remain to heal it (Zhu & Gupta 2017).
    """
    done = cycle / cycles
    if schedule == "one_shot":
        return target
    if schedule == "linear":
        return target * done
    return target * (1 - (1 - done) ** 3)
