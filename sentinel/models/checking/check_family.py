"""Tries laws 1 to 3 on any model that loads: open gates, surgery against masking, export and reload.

Cuts a copy of the model in every way that a job can: groups of attention and of the MLP, evenly and unevenly over
the layers, and whole layers. What transformers warns of where nothing was cut is the model's own. Knows no family.
"""

import copy
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sentinel.errors import SentinelError
from sentinel.models.adaptive.gates import Gates
from sentinel.models.checking.fresh_process import Reloaded, reload_elsewhere
from sentinel.models.families.base import UNITS, Family, Unit
from sentinel.models.loaders.load import LoadedModel, load_model
from sentinel.models.optimized.export import export
from sentinel.models.optimized.surgery import apply_removal
from sentinel.spec import ModelSource, PathModel

# Of logits near 1; sums of larger ones are rounded by as much more.
TOLERANCE = 1e-5
NEW_TOKENS = 8
_LENGTH = 16
_UNCUT = "nothing"
_Removed = Mapping[Unit, Mapping[int, Sequence[int]]]


@dataclass(frozen=True, kw_only=True)
class LawResult:
    """One law, tried with one cut.

    Attributes:
        law: What must hold.
        cut: What was removed.
        measured: What was found.
        passed: Whether the law holds.
    """

    law: str
    cut: str
    measured: str
    passed: bool


@dataclass(frozen=True)
class _Computed:
    logits: torch.Tensor
    tokens: torch.Tensor


def check_family(source: ModelSource) -> list[LawResult]:
    """The laws on a model, on the CPU in float32; takes memory for two copies of it and disk for one a cut.

    Raises:
        SentinelError: As `load_model` does, above all ModelUnsupported where no family serves the model.
    """
    loaded = load_model(source, device="cpu", dtype="float32")
    torch.manual_seed(0)
    tokens = torch.randint(loaded.model.config.vocab_size, (2, _LENGTH))
    results = [_open_gates(loaded, tokens)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        expected: dict[str, _Computed] = {}
        for name, removed in _cuts(loaded.family, loaded.model).items():
            try:
                label, found, computed = _cut(loaded, tokens, name, removed, root / name)
            except Exception as error:  # a family that is wrong can fail anywhere in the model's own code
                results.append(_failure("2 cut and export", name, error))
            else:
                results += found
                expected[label] = computed
        elsewhere = reload_elsewhere(root, tokens, new_tokens=NEW_TOKENS, caches=["dynamic"])
        own = elsewhere[_UNCUT].log if _UNCUT in elsewhere else []
        for label, wanted in expected.items():
            name = label.partition(" ")[0]
            results += _reloads(label, wanted, elsewhere[name], tokens, root / name, own=own)
    return results


def _cuts(family: Family, model: PreTrainedModel) -> dict[str, _Removed]:
    """Name → what to remove; cuts that the model has too few groups for are left out."""
    cuts: dict[str, _Removed] = {_UNCUT: {}}
    for unit in UNITS:
        counts = family.counts(model, unit)
        if min(counts) > 1:
            quarters = {layer: _quarter(layer, count) for layer, count in enumerate(counts)}
            cuts[f"{unit}-even"] = {unit: quarters}
            cuts[f"{unit}-uneven"] = {unit: {layer: groups for layer, groups in quarters.items() if layer % 2 == 0}}
        cuts[f"{unit}-whole"] = {unit: {0: range(counts[0])}}
    return cuts


def _quarter(layer: int, count: int) -> range:
    """A quarter of a layer's groups, at least one, at a place of its own."""
    width = max(1, count // 4)
    start = layer % (count - width + 1)
    return range(start, start + width)


def _open_gates(loaded: LoadedModel, tokens: torch.Tensor) -> LawResult:
    model, _, family = loaded
    with torch.no_grad():
        untouched = model(tokens).logits
        with Gates(family.sites(model)):
            return _same_bits("1 open gates", _UNCUT, model(tokens).logits, untouched)


def _cut(
    loaded: LoadedModel, tokens: torch.Tensor, name: str, removed: _Removed, folder: Path
) -> tuple[str, list[LawResult], _Computed]:
    """Mask, then cut and export a copy; the cut's name with its form, what was found, what the cut model computes."""
    model, tokenizer, family = loaded
    masked = _masked(loaded, tokens, removed)
    pruned = copy.deepcopy(model)
    apply_removal(pruned, family, removed)
    cut, uncached = _compute(pruned, tokens), _compute(pruned, tokens, use_cache=False)
    kept = {unit: list(_left(family.counts(model, unit), removed.get(unit, {}))) for unit in UNITS}
    directory = folder / "checkpoint"
    form = export(pruned, tokenizer, family=family, form="auto", dtype="float32", directory=directory, kept=kept)
    label = f"{name} ({form})"
    same = torch.equal(cut.tokens, masked.tokens) and torch.equal(uncached.tokens, masked.tokens)
    tokens_law = LawResult(
        law="2 generation",
        cut=label,
        measured="same tokens" if same else "other tokens",
        passed=same,
    )
    return label, [_close_enough(label, cut.logits, masked.logits), tokens_law], cut


def _masked(loaded: LoadedModel, tokens: torch.Tensor, removed: _Removed) -> _Computed:
    with Gates(loaded.family.sites(loaded.model)) as gates:
        for index, site in enumerate(gates.sites):
            for group in removed.get(site.unit, {}).get(site.layer, ()):
                gates.close(index, group)
        return _compute(loaded.model, tokens)


def _reloads(
    label: str, wanted: _Computed, elsewhere: Reloaded, tokens: torch.Tensor, folder: Path, *, own: Collection[str]
) -> Iterator[LawResult]:
    """The checkpoint in a process without Sentinel, and through our own loader, which never runs its code.

    `own` are warnings that the model gives uncut.
    """
    law = "3 transformers alone"
    # What did not load says so in its last line.
    said = [line for line in elsewhere.log if line not in own] if elsewhere.computed else elsewhere.log[-1:]
    if said:
        yield LawResult(law=law, cut=label, measured=said[0], passed=False)
    else:
        yield _same_bits(law, label, elsewhere.computed["logits"], wanted.logits)
    law = "3 Sentinel's loader"
    try:
        again = load_model(PathModel(path=str(folder / "checkpoint")), device="cpu", dtype="float32").model
    except SentinelError as error:
        yield _failure(law, label, error)
        return
    with torch.no_grad():
        yield _same_bits(law, label, again(tokens).logits, wanted.logits)


def _failure(law: str, cut: str, error: Exception) -> LawResult:
    return LawResult(law=law, cut=cut, measured=f"{type(error).__name__}: {error}", passed=False)


def _close_enough(cut: str, found: torch.Tensor, wanted: torch.Tensor) -> LawResult:
    difference, allowed = _difference(found, wanted), TOLERANCE * max(1.0, float(wanted.abs().max()))
    return LawResult(
        law="2 surgery = masking",
        cut=cut,
        measured=f"{difference:.1e} of {allowed:.1e}",
        passed=difference <= allowed,
    )


def _same_bits(law: str, cut: str, found: torch.Tensor, wanted: torch.Tensor) -> LawResult:
    difference = _difference(found, wanted)
    return LawResult(law=law, cut=cut, measured=f"{difference:.1e}", passed=difference == 0)


@torch.no_grad()
def _compute(model: PreTrainedModel, tokens: torch.Tensor, *, use_cache: bool = True) -> _Computed:
    generated = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=1,
        use_cache=use_cache,
        pad_token_id=0,
    )
    return _Computed(model(tokens).logits, generated)


def _left(counts: Sequence[int], removed: Mapping[int, Sequence[int]]) -> Iterator[list[int]]:
    for layer, count in enumerate(counts):
        yield [group for group in range(count) if group not in removed.get(layer, ())]


def _difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max())
