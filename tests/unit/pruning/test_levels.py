"""What a spec lets the sites of a model lose, and what it asks of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel.errors import SpecInvalid
from sentinel.models.families import family_of
from sentinel.models.families.base import Site
from sentinel.pruning.levels import choice_of, goals_of, units_of
from sentinel.pruning.pruning_module import PruningModule
from tests.unit.pruning.tiny import prune, tiny_llama


def selected(model, family, windows, **settings):
    """Groups left per unit and layer, and the selection."""
    module, section = PruningModule(model, family), prune(strategy="magnitude", **settings)
    calibration = module.calibration(windows, section, seed=0)
    selection = module.select(calibration, section)
    module.cut(calibration, selection.cut, compensation=None)
    return {unit: family.counts(model, unit) for unit in ("attention", "mlp")}, selection


def test_layers_are_both_units():
    assert units_of(["layer"]) == ["attention", "mlp"]
    assert units_of(["mlp"]) == ["mlp"]
    assert units_of(["layer", "attention"]) == ["attention", "mlp"]


@pytest.mark.parametrize(
    ("settings", "unit", "levels"),
    [
        ({"units": ["attention"]}, "attention", [0, 1, 2, 3]),
        ({"units": ["attention"], "minimum_per_layer": 3}, "attention", [0, 1]),
        ({"units": ["mlp"], "mlp_block": 8}, "mlp", [0, 4, 12, 20]),
        ({"units": ["mlp"], "mlp_block": 8, "minimum_per_layer": 2}, "mlp", [0, 4, 12]),
        ({"units": ["layer"], "allocation": "global"}, "attention", [0, 4]),
        (
            {"units": ["attention", "layer"], "allocation": "global", "target": {"parameters": 1}},
            "attention",
            [0, 1, 2, 3, 4],
        ),
        ({"units": ["attention", "layer"], "allocation": "global", "target": {"parameters": 1}}, "mlp", [0, 28]),
        ({"units": ["mlp"], "mlp_block": 8, "protected_layers": [1]}, "mlp", [0]),
        ({"units": ["layer"], "allocation": "global", "protected_layers": [1]}, "attention", [0]),
    ],
)
def test_levels_follow_units_blocks_floors_and_protection(settings, unit, levels):
    count = {"attention": 4, "mlp": 28}[unit]
    assert list(choice(prune(**settings), count, unit=unit, layer=1).levels) == levels


def choice(section, count, *, unit, layer, dense=None):
    site = Site(unit=unit, layer=layer, num_groups=count, group_width=1, group_parameters=1, output=None)
    return choice_of(section, site, dense_count=dense or count, cost=GROUPS)


class GROUPS:
    """The cost that counts groups, without a model."""

    total = 1000

    @staticmethod
    def savings(_, counts):
        return np.asarray(counts, dtype=float)


@settings(deadline=None, max_examples=200)
@given(
    sparsity=st.floats(0, 0.99),
    allocation=st.sampled_from(["uniform", "global", "cost"]),
    block=st.sampled_from([1, 4, 8]),
    minimum=st.integers(1, 2),
    protected=st.lists(st.integers(0, 3), max_size=2, unique=True),
    counts=st.sampled_from([(16, 16, 16, 16), (20, 20, 20, 20)]),
)
def test_a_sparsity_is_reached_to_the_rounding_or_refused(sparsity, allocation, block, minimum, protected, counts):
    section = prune(
        units=["mlp"],
        mlp_block=block,
        allocation=allocation,
        minimum_per_layer=minimum,
        protected_layers=protected,
        target={"sparsity": sparsity},
    )
    sites = [
        Site(unit="mlp", layer=n, num_groups=c, group_width=1, group_parameters=1, output=None)
        for n, c in enumerate(counts)
    ]
    choices = [choice_of(section, site, dense_count=site.num_groups, cost=GROUPS) for site in sites]
    (goal,) = goals_of(section, sites, choices, GROUPS, emptied=0, before=0.0, progress=1.0)
    wanted = sparsity * sum(counts)
    # Every layer is rounded to its block; without blocks and evenness only the sum is rounded.
    rounding = 0.5 if block == 1 and allocation != "uniform" else len(counts) * block / 2
    assert abs(goal.needed - wanted) <= rounding + 1e-9


def test_attention_rounds_to_the_nearest_even_count(model, family, windows):
    left, _ = selected(model, family, windows, target={"sparsity": 0.3})
    assert left["attention"] == [3, 3, 3]


def test_each_unit_reaches_the_sparsity_by_itself(model, family, windows):
    left, selection = selected(
        model, family, windows, units=["attention", "mlp"], allocation="global", target={"sparsity": 0.5}
    )
    dense = family.dense_count(model.config, "mlp")
    assert sum(left["attention"]) == 6
    assert abs(sum(left["mlp"]) - 1.5 * dense) <= 12
    assert all(count % 8 == 0 for count in left["mlp"])
    assert selection.predicted == sum(left["attention"]) + sum(left["mlp"])


@pytest.mark.parametrize("allocation", ["uniform", "global", "cost"])
@pytest.mark.parametrize("unit", ["attention", "mlp"])
def test_protected_layers_lose_nothing_and_the_others_make_up_for_it(model, family, windows, allocation, unit):
    dense = family.counts(model, unit)
    left, _ = selected(
        model, family, windows, units=[unit], allocation=allocation, protected_layers=[0, 2], target={"sparsity": 0.25}
    )
    assert left[unit][0] == dense[0]
    assert left[unit][2] == dense[2]
    assert left[unit][1] <= 0.25 * dense[1]


@pytest.mark.parametrize(
    "settings", [{"units": ["mlp"]}, {"units": ["attention"]}, {"units": ["mlp"], "protected_layers": [0, 1]}]
)
def test_a_sparsity_beyond_floors_and_protection_is_refused(model, family, windows, settings):
    with pytest.raises(SpecInvalid, match="minimum_per_layer"):
        selected(model, family, windows, target={"sparsity": 0.95}, **settings)


@pytest.mark.parametrize(
    "counts", [(144, 288, 288, 288), (40, 200, 288, 288), (288, 288, 288, 288), (200, 200, 280, 280)]
)
def test_what_a_layer_has_lost_beyond_its_share_the_others_keep(counts):
    """Blocks and uneven layers, as a second cycle finds them: the sum is the sparsity's, to the rounding."""
    section = prune(units=["mlp"], mlp_block=8, allocation="global", target={"sparsity": 0.5})
    sites = [
        Site(unit="mlp", layer=n, num_groups=c, group_width=1, group_parameters=1, output=None)
        for n, c in enumerate(counts)
    ]
    choices = [choice_of(section, site, dense_count=288, cost=GROUPS) for site in sites]
    (goal,) = goals_of(section, sites, choices, GROUPS, emptied=0, before=0.0, progress=0.6)
    assert abs(4 * 288 - sum(counts) + goal.needed - 0.3 * 4 * 288) <= 4 * 8 / 2


@settings(deadline=None, max_examples=100)
@given(
    sparsity=st.sampled_from([0.3, 0.5, 0.6]),
    counts=st.lists(st.sampled_from([172, 180, *range(8, 172, 8)]), min_size=5, max_size=5),
)
def test_as_many_are_left_whatever_way_led_there(sparsity, counts):
    """172 neurons are no whole blocks; one layer may have grown by one."""

    def left(counts):
        section = prune(units=["mlp"], mlp_block=8, allocation="global", target={"sparsity": sparsity})
        sites = [
            Site(unit="mlp", layer=n, num_groups=c, group_width=1, group_parameters=1, output=None)
            for n, c in enumerate(counts)
        ]
        choices = [choice_of(section, site, dense_count=172, cost=GROUPS) for site in sites]
        (goal,) = goals_of(section, sites, choices, GROUPS, emptied=0, before=0.0, progress=1.0)
        return sum(counts) - goal.needed

    assert left(counts) == min(sum(counts), left([172] * 5))


@pytest.mark.parametrize("sparsity", [0.3, 0.5])
def test_whole_layers_are_counted_as_such(model, family, windows, sparsity):
    left, _ = selected(model, family, windows, units=["layer"], allocation="global", target={"sparsity": sparsity})
    gone = sum(count == 0 for counts in left.values() for count in counts)
    assert gone == round(6 * sparsity)
    assert all(
        count in (0, family.dense_count(model.config, unit)) for unit, counts in left.items() for count in counts
    )


def test_whole_layers_go_over_several_cuts(family, model, windows):
    """What is gone already counts, and is not judged again."""
    module = PruningModule(model, family)
    section = prune(units=["layer"], allocation="global", strategy="energy", target={"sparsity": 0.5})
    for progress, gone in [(1 / 3, 1), (2 / 3, 2), (1.0, 3)]:
        calibration = module.calibration(windows, section, seed=0)
        selection = module.select(calibration, section, progress=progress)
        module.cut(calibration, selection.cut, compensation="least_squares")
        assert sum(not groups for layers in module.kept.values() for groups in layers) == gone


@pytest.mark.parametrize("search", [None, {"evaluations": 20, "windows": 4}])
def test_a_cut_behind_the_last_one_finds_nothing(family, model, windows, search):
    module = PruningModule(model, family)
    section = prune(units=["layer"], allocation="global", strategy="obs", target={"sparsity": 0.99}, search=search)
    for gone in (6, 6):
        calibration = module.calibration(windows, section, seed=0)
        selection = module.select(calibration, section)
        module.cut(calibration, selection.cut, compensation="reconstruction")
        assert sum(not groups for layers in module.kept.values() for groups in layers) == gone


@pytest.mark.parametrize("before", [0.0, 0.5, 1.0])
def test_a_target_that_is_a_cost_is_approached_by_shares(before):
    section = prune(units=["attention"], target={"parameters": 40})
    model = tiny_llama()
    sites = PruningModule(model, family_of("llama")).calibration(None, section, seed=0).sites()
    choices = [choice_of(section, site, dense_count=4, cost=GROUPS) for site in sites]
    (goal,) = goals_of(section, sites, choices, GROUPS, emptied=0, before=before, progress=1.0)
    assert goal.needed == 960
    (half,) = goals_of(section, sites, choices, GROUPS, emptied=0, before=0.0, progress=0.5)
    assert half.needed == 480
    (none,) = goals_of(prune(target={"parameters": 2000}), sites, choices, GROUPS, emptied=0, before=0.0, progress=1.0)
    assert none.needed == 0
