"""Laws 1 to 3 of the design for every family × kind of heads × unit × way to cut; the ids are the matrix."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.models.checking.fresh_process import Reloaded, reload_elsewhere
from sentinel.models.families import FAMILIES, family_of
from sentinel.models.loaders.load import LoadedModel, load_model
from sentinel.models.optimized.export import export
from sentinel.models.optimized.surgery import apply_removal
from sentinel.spec import PathModel
from tests.unit.models.conftest import CONFIGS, UNITS, close, make_loaded, survivors

NEW_TOKENS = 2
TOKENS = torch.randint(1, 30, (2, 9), generator=torch.Generator().manual_seed(2))
Removal = Mapping[str, Mapping[int, Sequence[int]]]


def heads_of(variant: str) -> str:
    config = CONFIGS[variant]
    family = family_of(config.model_type)
    if family.queries_per_kv_head(config) == 1:
        return "mha"
    return "mqa" if family.dense_count(config, "attention") == 1 else "gqa"


@dataclass(frozen=True)
class Case:
    """One cell: what is cut out of one variant, and in which form it is exported."""

    variant: str
    unit: str
    cut: str

    def __str__(self) -> str:
        heads = heads_of(self.variant)
        return "-".join([self.variant, *([] if heads in self.variant else [heads]), self.unit, self.cut])

    @property
    def form(self) -> str:
        return "masked" if self.cut == "masked" else "auto"

    @property
    def removed(self) -> Removal:
        config = CONFIGS[self.variant]
        family = family_of(config.model_type)
        groups, neurons = (range(family.dense_count(config, unit)) for unit in UNITS)
        uneven = {0: [1], 1: [0, 2]} if len(groups) > 2 else {1: [0]}
        return {
            "attention-uniform": {"attention": {0: [1], 1: groups[-1:], 2: [0]}},
            "attention-uneven": {"attention": uneven},
            "mlp-uniform": {"mlp": {0: [0, 1, 5], 1: neurons[-3:], 2: [7, 9, 11]}},
            "mlp-uneven": {"mlp": {0: [1, 5], 2: range(8)}},
            "layer-uniform": {"attention": dict.fromkeys(range(3), groups)},
            "layer-uneven": {"attention": {0: groups}, "mlp": {1: neurons}},
            "both-masked": {"attention": {**uneven, 2: groups}, "mlp": {0: [1, 5], 1: neurons}},
            "both-twice": {"attention": uneven, "mlp": {0: [1, 5], 2: range(8)}},
        }[f"{self.unit}-{self.cut}"]


ROW = (
    ("attention", "uniform"), ("attention", "uneven"), ("mlp", "uniform"), ("layer", "uneven"), ("both", "twice"),
    ("mlp", "uneven"), ("layer", "uniform"), ("both", "masked"),
)  # fmt: skip
# What does not depend on the kind of heads is tried once per architecture: with the first of its variants, of the
# gated ones with that which has fewer KV heads than heads.
SHORT_ROW = ROW[:5]
WHOLE_ROWS = {config.model_type: variant for variant, config in reversed(CONFIGS.items())}
WHOLE_ROWS |= {config.model_type: variant for variant, config in CONFIGS.items() if variant.endswith("-gqa")}


def cases() -> Iterator[Case]:
    for variant in CONFIGS:
        for unit, cut in ROW if variant in WHOLE_ROWS.values() else SHORT_ROW:
            # With one KV head for all queries a layer is one group: fewer in every layer would be none.
            if heads_of(variant) != "mqa" or (unit, cut) != ("attention", "uniform"):
                yield Case(variant, unit, cut)


CASES = list(cases())
# Writing and reading take most of the time; of a short row, a checkpoint that may be stock and one that is not.
EXPORTED = [
    case
    for case in CASES
    if case.variant in WHOLE_ROWS.values() or case.cut == "twice" or (case.unit, case.cut) == ("attention", "uniform")
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    checkpoint: Path
    masked: dict[str, torch.Tensor]
    cut: dict[str, torch.Tensor]
    shapes: dict[str, torch.Size]
    counts_fit: bool
    elsewhere: Reloaded | None


def computed(model, **options) -> dict[str, torch.Tensor]:
    options |= {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    tokens = model.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), **options)
    return {"logits": model(TOKENS).logits.detach(), "tokens": tokens}


def perform(case: Case, dense: LoadedModel, folder: Path) -> dict[str, object]:
    """Mask, cut and, where wanted, export one case of a variant's model; compute what each step computes."""
    model, tokenizer, family = dense
    with Gates(family.sites(model)) as gates:
        close(gates, case.removed)
        masked = computed(model)
    kept = survivors(family, model, case.removed)
    model = copy.deepcopy(model)
    if case.cut == "twice":
        model = cut_twice(case, LoadedModel(model, tokenizer, family), folder / "first")
    else:
        apply_removal(model, family, case.removed)
    cut = computed(model) | {"no_cache": computed(model, use_cache=False)["tokens"]}
    checkpoint = folder / "checkpoint"
    if case in EXPORTED:
        export(model, tokenizer, family=family, form=case.form, dtype="float32", directory=checkpoint, kept=kept)
    counts = {unit: family.counts(model, unit) for unit in UNITS}
    counts_fit = counts == {unit: [len(groups) for groups in layers] for unit, layers in kept.items()}
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    return {"checkpoint": checkpoint, "masked": masked, "cut": cut, "shapes": shapes, "counts_fit": counts_fit}


def cut_twice(case: Case, dense: LoadedModel, folder: Path):
    """Cut the last of each layer's groups to go, export, load with our own loader, then cut the others."""
    model, tokenizer, family = dense
    last = {unit: {layer: groups[-1:] for layer, groups in layers.items()} for unit, layers in case.removed.items()}
    first = {unit: {layer: groups[:-1] for layer, groups in layers.items()} for unit, layers in case.removed.items()}
    kept = survivors(family, model, last)
    apply_removal(model, family, last)
    export(model, tokenizer, family=family, form="remote_code", dtype="float32", directory=folder, kept=kept)
    again = load_model(PathModel(path=str(folder)), device="cpu", dtype="float32").model
    apply_removal(again, family, first)
    return again


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Outcome]:
    """Every selected case, exported here and loaded in one process that knows nothing of Sentinel."""
    root = tmp_path_factory.mktemp("laws")
    selected = {item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")}
    done = {}
    for variant, row in itertools.groupby((case for case in CASES if case in selected), key=lambda case: case.variant):
        dense = make_loaded(variant)
        done |= {case: perform(case, dense, root / str(case)) for case in row}
    found = reload_elsewhere(root, TOKENS, new_tokens=NEW_TOKENS, caches=["dynamic"])
    return {case: Outcome(**here, elsewhere=found.get(str(case))) for case, here in done.items()}


def test_the_matrix_has_every_supported_type():
    assert {config.model_type for config in CONFIGS.values()} == {t for family in FAMILIES for t in family.model_types}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("variant", CONFIGS)
def test_law_1_open_gates_change_no_bit(variant, dtype):
    model, _, family = make_loaded(variant, dtype=dtype)
    untouched = model(TOKENS).logits
    with Gates(family.sites(model)):
        assert torch.equal(model(TOKENS).logits, untouched)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_law_2_surgery_equals_masking(case, outcomes):
    outcome = outcomes[case]
    assert outcome.counts_fit
    assert (outcome.cut["logits"] - outcome.masked["logits"]).abs().max() <= 1e-5
    assert torch.equal(outcome.cut["tokens"], outcome.masked["tokens"])
    assert torch.equal(outcome.cut["no_cache"], outcome.masked["tokens"])


@pytest.mark.parametrize("case", EXPORTED, ids=str)
def test_law_3_a_fresh_process_computes_the_same_bits(case, outcomes):
    outcome = outcomes[case]
    assert outcome.elsewhere.log == []
    reloaded = outcome.elsewhere.computed
    if case.form == "masked":
        assert (reloaded["logits"] - outcome.cut["logits"]).abs().max() <= 1e-5
    else:
        assert torch.equal(reloaded["logits"], outcome.cut["logits"])
    assert torch.equal(reloaded["dynamic"], outcome.cut["tokens"])


@pytest.mark.parametrize("case", EXPORTED, ids=str)
def test_law_3_our_own_loader_computes_the_same_bits_without_running_code(case, outcomes):
    outcome = outcomes[case]
    for code in outcome.checkpoint.glob("*.py"):
        code.write_text("raise RuntimeError('the code of a checkpoint was run')\n")
    model = load_model(PathModel(path=str(outcome.checkpoint)), device="cpu", dtype="float32").model
    assert torch.equal(model(TOKENS).logits, outcome.elsewhere.computed["logits"])
    if case.form != "masked":
        # So that a run can go on from it.
        assert {name: value.shape for name, value in model.state_dict().items()} == outcome.shapes
