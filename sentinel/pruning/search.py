"""Finds a selection by what it really does to the model: its KL divergence after the repair, measured.

Greedy elimination (the step that costs least for what it saves, behind everything that is cut and repaired already),
then exchanges. Single scores mislead once much is gone, and how a budget spreads over layers matters more than any.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf

from sentinel.pruning.levels import Goal
from sentinel.pruning.ranking import Ranking
from sentinel.pruning.selection import Choice
from sentinel.pruning.trial import Removed, Trial

# Groups are searched one by one where there are this many evaluations for each, else along their site's ranking.
LOOKS_PER_GROUP = 2
# Share of the evaluations that elimination may use; exchanges get the rest.
ELIMINATION_SHARE = 0.7
# Looks at one step before it is taken, about; decides how many levels a step takes at once.
LOOKS_PER_STEP = 3
# An exchange must lower the divergence by this share of it.
LEAST_GAIN = 1e-3


@dataclass(frozen=True)
class Step:
    """One group of a site, or, with `group` None, the next level of its ranking."""

    site: int
    group: int | None


class Space:
    """The selections that a search may visit."""

    def __init__(
        self,
        rankings: Sequence[Ranking],
        choices: Sequence[Choice],
        goals: Sequence[Goal],
        *,
        evaluations: int,
        even: bool,
    ) -> None:
        """The more `evaluations`, the shorter the steps of large sites; with `even`, every site keeps its number."""
        self._rankings, self._choices, self._goals, self.even = rankings, choices, goals, even
        singly = [choice for choice in choices if _steps_are_groups(choice)]
        self._one_by_one = sum(choice.count for choice in singly) * LOOKS_PER_GROUP <= evaluations
        levels = sum(len(choice.levels) - 1 for site, choice in enumerate(choices) if not self._singly(site))
        self._stride = max(1, ceil(levels * LOOKS_PER_STEP / evaluations))

    def start(self) -> Removed:
        """Nothing removed."""
        return tuple(() for _ in self._choices)

    def lacking(self, removed: Removed, goal: Goal) -> float:
        """What a selection still has to save for one goal; 0 once it is reached."""
        saved = sum(self._choices[site].saving(len(removed[site])) for site in goal.sites)
        return max(0.0, goal.needed * (1 - 1e-9) - saved)

    def enough(self, removed: Removed) -> bool:
        """Whether a selection reaches every goal."""
        return not any(self.lacking(removed, goal) for goal in self._goals)

    def gain(self, removed: Removed, following: Removed, site: int) -> float:
        """What a step of one site saves."""
        choice = self._choices[site]
        return choice.saving(len(following[site])) - choice.saving(len(removed[site]))

    def forward(self, removed: Removed) -> Iterator[Step]:
        """The steps that a selection leaves open."""
        for site, choice in enumerate(self._choices):
            if len(removed[site]) < choice.levels[-1]:
                if self._singly(site):
                    yield from (Step(site, g) for g in self._rankings[site].order if g not in removed[site])
                else:
                    yield Step(site, None)

    def backward(self, removed: Removed) -> Iterator[Step]:
        """The steps that a selection can take back."""
        for site, groups in enumerate(removed):
            if groups:
                yield from (Step(site, group) for group in groups) if self._singly(site) else [Step(site, None)]

    def after(self, removed: Removed, step: Step) -> Removed | None:
        """The selection with one more step; None where the site may lose no more, or its goal needs no more."""
        goal = next(goal for goal in self._goals if step.site in goal.sites)
        lacking = self.lacking(removed, goal)
        return self._stepped(removed, step, lacking) if lacking else None

    def beyond(self, removed: Removed) -> Iterator[tuple[Step, Removed]]:
        """Every step that a selection leaves open with where it leads, whatever the goals need."""
        for step in self.forward(removed):
            if (further := self._stepped(removed, step, inf)) is not None:
                yield step, further

    def _stepped(self, removed: Removed, step: Step, lacking: float) -> Removed | None:
        """No further than `lacking` asks for."""
        groups, choice = removed[step.site], self._choices[step.site]
        at = choice.levels.index(len(groups))
        if at + 1 >= len(choice.levels):
            return None
        if step.group is not None:
            return _with(removed, step.site, (*groups, step.group))
        reach = range(at + 1, min(at + self._stride, len(choice.levels) - 1) + 1)
        enough = [i for i in reach if choice.savings[i] - choice.savings[at] >= lacking]
        level = choice.levels[min(enough, default=reach[-1])]
        return _with(removed, step.site, self._rankings[step.site].order[:level])

    def before(self, removed: Removed, step: Step) -> Removed:
        """The selection with one step taken back."""
        groups, choice = removed[step.site], self._choices[step.site]
        if step.group is not None:
            return _with(removed, step.site, [group for group in groups if group != step.group])
        level = choice.levels[max(0, choice.levels.index(len(groups)) - self._stride)]
        return _with(removed, step.site, self._rankings[step.site].order[:level])

    def _singly(self, site: int) -> bool:
        """Whether each group is a step of its own."""
        return self._one_by_one and _steps_are_groups(self._choices[site])


def _steps_are_groups(choice: Choice) -> bool:
    return list(choice.levels) == list(range(len(choice.levels)))


def refine(trial: Trial, space: Space, selected: Sequence[Sequence[int]], *, evaluations: int) -> Removed:
    """Groups to remove, per site, that reach the goals: `selected`, or what elimination finds if that is better."""
    removed: Removed = tuple(tuple(sorted(groups)) for groups in selected)
    if not space.even:
        found = eliminate(trial, space, evaluations=int(evaluations * ELIMINATION_SHARE))
        if found is not None:
            removed = min(removed, found, key=trial.divergence)
    return exchange(trial, space, removed, evaluations=evaluations)


def eliminate(trial: Trial, space: Space, *, evaluations: int) -> Removed | None:
    """From nothing removed, always the step that costs least for what it saves, until enough is saved.

    A price is looked at again before its step is taken, as prices rarely fall when more is gone (lazy greedy).
    None if the evaluations do not suffice.
    """
    removed, divergence = space.start(), 0.0
    waiting = [(0.0, number, step) for number, step in enumerate(space.forward(removed))]
    while not space.enough(removed) and waiting:
        seen, number, step = heapq.heappop(waiting)
        following = space.after(removed, step)
        if following is None:
            continue
        if trial.evaluations >= evaluations:
            return None
        found = trial.divergence(following)
        price = (found - divergence) / max(space.gain(removed, following, step.site), 1e-30)
        if waiting and price > waiting[0][0] and price > seen:
            heapq.heappush(waiting, (price, number, step))
            continue
        removed, divergence = following, found
        trial.settle(removed)
        if step.group is None:
            heapq.heappush(waiting, (price, number, step))
    return removed


def exchange(trial: Trial, space: Space, removed: Removed, *, evaluations: int) -> Removed:
    """Take one step back and another forward while that lowers the divergence and still saves enough."""
    best = trial.settle(removed)
    while trial.evaluations < evaluations:
        better = _better_exchange(trial, space, removed, best, evaluations)
        if better is None:
            break
        removed = better
        best = trial.settle(removed)
    return removed


def _better_exchange(trial: Trial, space: Space, removed: Removed, best: float, evaluations: int) -> Removed | None:
    """The first exchange that pays, the most promising tried first; None if none does or evaluations run out."""
    # Where counts stay even, a step along a ranking can only be taken back by itself.
    backward = [step for step in space.backward(removed) if step.group is not None or not space.even]
    forward = [pair for pair in space.beyond(removed) if pair[0].group is not None or not space.even]
    if trial.evaluations + len(backward) + len(forward) > evaluations:
        return None
    gains = [(trial.divergence(space.before(removed, step)) - best, step) for step in backward]
    costs = [(trial.divergence(further) - best, step) for step, further in forward]
    pairs = [
        (gain + cost, back, forth)
        for gain, back in gains
        for cost, forth in costs
        if back.site == forth.site or not space.even
    ]
    for _, back, forth in sorted(pairs, key=lambda pair: pair[0]):
        if trial.evaluations >= evaluations:
            return None
        candidate = space.after(space.before(removed, back), forth)
        if candidate is None or candidate == removed or not space.enough(candidate):
            continue
        if trial.divergence(candidate) < best * (1 - LEAST_GAIN):
            return candidate
    return None


def _with(removed: Removed, site: int, groups: Sequence[int]) -> Removed:
    return (*removed[:site], tuple(sorted(groups)), *removed[site + 1 :])
