import pytest

from sentinel.pruning.costs import cost_of
from sentinel.pruning.levels import choice_of, goals_of
from sentinel.pruning.pruning_module import PruningModule
from sentinel.pruning.search import Space, eliminate, exchange, refine
from sentinel.pruning.selection import select
from sentinel.pruning.strategies import STRATEGIES
from sentinel.pruning.trial import Trial
from tests.unit.pruning.tiny import calibrate, prune, tiny_gpt2


class Setting:
    """A space to search, its trial, and the selection that scores alone make."""

    def __init__(self, model, windows, *, evaluations=40, **settings):
        windows = windows[:4]
        self.section = prune(**settings)
        self.calibration = calibrate(model, windows, *self.section.units)
        self.sites = self.calibration.sites()
        cost = cost_of(self.section.target.kind, self.calibration)
        rankings = STRATEGIES["magnitude"](self.calibration)
        self.choices = [choice_of(self.section, site, dense_count=site.num_groups, cost=cost) for site in self.sites]
        self.goals = goals_of(self.section, self.sites, self.choices, cost, emptied=0, before=0.0, progress=1.0)
        self.selected = [()] * len(self.sites)
        for goal in self.goals:
            chosen = select(
                [rankings[i] for i in goal.sites],
                [self.choices[i] for i in goal.sites],
                goal.needed,
                allocation=self.section.allocation,
            )
            for site, groups in zip(goal.sites, chosen, strict=True):
                self.selected[site] = tuple(groups)
        self.selected = tuple(self.selected)
        even = self.section.allocation == "uniform"
        self.space = Space(rankings, self.choices, self.goals, evaluations=evaluations, even=even)
        self.trial = Trial(self.calibration, compensation=self.section.compensation)

    def check(self, removed):
        """Every goal is reached and every site is at one of its levels."""
        assert self.space.enough(removed)
        for goal in self.goals:
            assert sum(self.choices[i].saving(len(removed[i])) for i in goal.sites) >= goal.needed
        for groups, site in zip(removed, self.sites, strict=True):
            assert list(groups) == sorted(set(groups))
            assert set(groups) <= set(range(site.num_groups))


SETTINGS = {
    "even": {"allocation": "uniform"},
    "attention": {"allocation": "global"},
    "mixed": {"allocation": "global", "units": ["attention", "mlp"]},
    "parameters": {"allocation": "cost", "units": ["attention", "mlp"], "target": {"parameters": 15000}},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("evaluations", [40, 6])
def test_a_search_reaches_the_goals_and_is_never_worse_than_its_start(model, windows, name, evaluations):
    """Not even where its evaluations do not suffice to look at every step once."""
    setting = Setting(model, windows, evaluations=evaluations, **SETTINGS[name])
    found = refine(setting.trial, setting.space, setting.selected, evaluations=evaluations)
    setting.check(found)
    assert setting.trial.divergence(found) <= setting.trial.divergence(setting.selected)


def test_a_search_finds_what_scores_miss(model, windows):
    setting = Setting(model, windows, allocation="global")
    found = refine(setting.trial, setting.space, setting.selected, evaluations=40)
    assert setting.trial.divergence(found) < 0.9 * setting.trial.divergence(setting.selected)


def test_even_counts_stay_even(model, windows):
    setting = Setting(model, windows, allocation="uniform", evaluations=60)
    found = refine(setting.trial, setting.space, setting.selected, evaluations=60)
    assert list(map(len, found)) == list(map(len, setting.selected)) == [2, 2, 2]
    assert setting.trial.divergence(found) < setting.trial.divergence(setting.selected)


def test_elimination_takes_the_cheapest_step_first(model, windows):
    """Of all single groups, the one whose loss costs least after the repair."""
    setting = Setting(model, windows, allocation="global", target={"sparsity": 0.09})
    (goal,) = setting.goals
    assert goal.needed == 1
    single = [tuple((g,) if at == s else () for at in range(3)) for s in range(3) for g in range(4)]
    best = min(single, key=setting.trial.divergence)
    assert eliminate(setting.trial, setting.space, evaluations=40) == best


def test_an_exchange_ends_where_no_exchange_pays(windows):
    setting = Setting(tiny_gpt2(), windows, allocation="uniform", target={"sparsity": 0.25})
    found = exchange(setting.trial, setting.space, setting.selected, evaluations=1000)
    best = setting.trial.divergence(found)
    for site, gone in enumerate(found):
        for group in set(range(4)) - set(gone):
            other = (*found[:site], (group,), *found[site + 1 :])
            assert setting.trial.divergence(other) >= best * (1 - 2e-3)


@pytest.mark.parametrize(
    "settings", [{"allocation": "global"}, {"allocation": "uniform"}, {"allocation": "global", "units": ["mlp"]}]
)
def test_a_module_searches_when_the_spec_says_so(model, family, windows, settings):
    """Kept floors, the same numbers, and the evaluations are told."""
    settings = {"strategy": "magnitude", **settings}
    plain, searched = prune(**settings), prune(search={"evaluations": 30, "windows": 4}, **settings)
    module = PruningModule(model, family)
    calibration = module.calibration(windows, plain, seed=0)
    before, after = module.select(calibration, plain), module.select(calibration, searched)
    assert before.evaluations == 0
    assert after.evaluations > 0
    assert after.predicted <= after.goal == before.goal
    few = calibrate(model, windows[:4], *plain.units)
    trial = Trial(few, compensation="least_squares")
    removed = [tuple(tuple(s.cut.get(x.unit, {}).get(x.layer, ())) for x in few.sites()) for s in (before, after)]
    assert trial.divergence(removed[1]) <= trial.divergence(removed[0])
