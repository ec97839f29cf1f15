import math
from typing import get_args

import pytest
import torch

from sentinel import strategy_catalog
from sentinel.models.adaptive.gates import Gates
from sentinel.prune_spec import ScoreName
from sentinel.pruning.ranking import by_importance
from sentinel.pruning.strategies import STRATEGIES, combined, rank_groups
from sentinel.pruning.strategies.ablation import WINDOWS
from sentinel.utils.metrics import kl_divergences
from tests.unit.models.conftest import make_model
from tests.unit.pruning.tiny import VOCABULARY, calibrate, silence

UNITS_OF = {name: ("attention",) if name == "entropy" else ("attention", "mlp") for name in STRATEGIES}


def calibrated_for(name, model, windows):
    return calibrate(model, windows, *UNITS_OF[name])


def hooks_of_ours(model):
    """What we hang on a model; transformers leaves hooks of its own that collect attention maps."""
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return [hook for hook in hooks if getattr(hook, "func", hook).__module__.startswith("sentinel")]


def test_every_strategy_of_the_spec_exists():
    described = [entry.name for entry in strategy_catalog.STRATEGIES]
    assert list(STRATEGIES) == list(get_args(ScoreName))
    assert described == [*STRATEGIES, "combined"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_group_is_ranked_and_the_model_is_left_as_it_was(model, windows, name):
    calibration = calibrated_for(name, model, windows)
    before = model(input_ids=windows).logits
    rankings = STRATEGIES[name](calibration)
    for ranking, site in zip(rankings, calibration.sites(), strict=True):
        assert sorted(ranking.order) == list(range(site.num_groups))
        assert ranking.damage.shape == (site.num_groups,)
        assert ranking.damage.dtype == torch.float64
        assert torch.isfinite(ranking.damage).all()
        # Two groups may undo what each does; only fisher looks at that.
        assert name == "fisher" or (ranking.importance() >= 0).all()
        assert len({round(float(score), 12) for score in ranking.importance()}) > 1
    assert torch.equal(model(input_ids=windows).logits, before)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not hooks_of_ours(model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", STRATEGIES)
def test_rankings_repeat_bit_for_bit(model, windows, name):
    first, second = (STRATEGIES[name](calibrated_for(name, model, windows)) for _ in range(2))
    assert [ranking.order for ranking in first] == [ranking.order for ranking in second]
    assert all(torch.equal(a.damage, b.damage) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("unit", ["attention", "mlp"])
def test_a_model_that_lost_a_whole_site_is_ranked_like_any_other(model, family, windows, name, unit):
    family.keep_groups(model, 1, unit, [])
    calibration = calibrated_for(name, model, windows)
    sites = calibration.sites()
    assert (unit, 1) not in [(site.unit, site.layer) for site in sites]
    rankings = STRATEGIES[name](calibration)
    assert [len(ranking.order) for ranking in rankings] == [site.num_groups for site in sites]
    assert all(torch.isfinite(ranking.damage).all() for ranking in rankings)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_model_that_lost_everything_has_nothing_to_rank(model, family, windows, name):
    for site in family.sites(model):
        family.keep_groups(model, site.layer, site.unit, [])
    assert rank_groups(calibrated_for(name, model, windows), name) == []


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("unit", ["attention", "mlp"])
def test_silent_groups_go_first(model, family, windows, name, unit):
    silence(model, family, 1, unit)
    calibration = calibrated_for(name, model, windows)
    importances = {
        (site.unit, site.layer): ranking.importance()
        for site, ranking in zip(calibration.sites(), STRATEGIES[name](calibration), strict=True)
    }
    assert all(torch.isfinite(importance).all() for importance in importances.values())
    if (unit, 1) in importances and name not in {"random", "learned"}:
        others = min(float(i.min()) for (kind, layer), i in importances.items() if kind == unit and layer != 1)
        assert importances[unit, 1].max() <= max(others, 1e-12)


def test_entropy_equals_its_definition(model, family, windows):
    rankings = STRATEGIES["entropy"](calibrate(model, windows, "attention"))
    model.set_attn_implementation("eager")
    maps = model(input_ids=windows, output_attentions=True).attentions
    queries = family.queries_per_kv_head(model.config)
    for layer, attention in enumerate(maps):
        p = attention.double()
        rows = -(p * torch.where(p > 0, p, 1).log()).sum(-1)
        for group, score in enumerate(rankings[layer].importance()):
            expected = math.log(windows.shape[1]) - rows[:, group * queries : (group + 1) * queries].mean()
            assert float(score) == pytest.approx(float(expected), rel=1e-5)


def test_magnitude_is_the_share_of_the_squared_weights(calibration, family):
    for site, ranking in zip(calibration.sites(), STRATEGIES["magnitude"](calibration), strict=True):
        slices = [family.group_weights(calibration.model, site, group) for group in range(site.num_groups)]
        squares = torch.tensor([sum(float(w.double().square().sum()) for w in weights) for weights in slices])
        torch.testing.assert_close(ranking.importance(), (squares / squares.mean()).double(), rtol=1e-5, atol=1e-6)


def test_random_depends_on_the_seed_alone(model, windows):
    one, same, other = (
        STRATEGIES["random"](calibrate(model, some, seed=seed))
        for some, seed in [(windows, 5), (windows[:1], 5), (windows, 6)]
    )
    assert [ranking.order for ranking in one] == [ranking.order for ranking in same]
    assert [ranking.order for ranking in one] != [ranking.order for ranking in other]


def test_ablation_is_the_divergence_of_closing_one_gate(model, windows):
    many = (windows.repeat(3, 1) + torch.arange(18)[:, None]) % VOCABULARY  # more than ablation looks at
    rankings = STRATEGIES["ablation"](calibrate(model, many))
    sites, few = calibrate(model, many).sites(), many[:WINDOWS]
    dense = model(input_ids=few).logits
    for index, group in [(0, 0), (0, 3), (1, 17), (3, 35), (4, 2)]:
        with Gates(sites) as gates:
            gates.close(index, group)
            expected = float(kl_divergences(dense, model(input_ids=few).logits).double().mean())
        assert float(rankings[index].importance()[group]) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_combined_adds_ranks_among_all_groups_of_a_unit(model, windows):
    calibration = calibrate(model, windows)
    names = {"magnitude": 2.0, "energy": 0.5}
    mixed = rank_groups(calibration, "combined", mix=names)
    sites = calibration.sites()
    for unit in ("attention", "mlp"):
        mine = [index for index, site in enumerate(sites) if site.unit == unit]
        places = [(index, group) for index in mine for group in range(sites[index].num_groups)]
        expected = dict.fromkeys(places, 0.0)
        for name, weight in names.items():
            scores = [ranking.importance() for ranking in STRATEGIES[name](calibration)]
            by_score = sorted(places, key=lambda place: float(scores[place[0]][place[1]]))
            for rank, place in enumerate(by_score):
                expected[place] += weight * rank / len(places)
        for index, group in places:
            assert float(mixed[index].importance()[group]) == pytest.approx(expected[index, group])


def test_a_mix_of_one_strategy_keeps_its_order(model, windows):
    calibration = calibrate(model, windows, "attention")
    alone = STRATEGIES["taylor"](calibration)
    mixed = combined.mix([(3.0, alone)], calibration.sites())
    assert [ranking.order for ranking in mixed] == [by_importance(ranking.importance()).order for ranking in alone]


@pytest.mark.parametrize("name", ["bloom", "gpt_neo", "phi3"])
def test_entropy_passes_over_a_layer_without_attention(name, windows):
    model = make_model(name)
    calibration = calibrate(model, windows % model.config.vocab_size, "attention")
    with torch.no_grad():
        last = STRATEGIES["entropy"](calibration)[-1].damage
        calibration.family.keep_groups(model, 0, "attention", [])
        rankings = STRATEGIES["entropy"](calibration)
    assert len(rankings) == len(calibration.sites()) == 2
    assert rankings[-1].damage.shape == last.shape
