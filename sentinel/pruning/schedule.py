"""How much of the way to the target is done after each cycle."""

from typing import Literal

ScheduleName = Literal["one_shot", "linear", "cubic"]


def progress_at(cycle: int, *, cycles: int, schedule: ScheduleName) -> float:
    """Share of the way to the target after `cycle`, counted from 1; 0 before the first, always 1 after the last.

    `cubic` is 1 − (1 − c/C)³: most is removed early, while the model is most redundant
    and the most cycles remain to heal it (Zhu & Gupta 2017).
    """
    done = cycle / cycles
    if schedule == "one_shot":
        return min(1.0, float(cycle))
    if schedule == "linear":
        return done
    return 1 - (1 - done) ** 3
