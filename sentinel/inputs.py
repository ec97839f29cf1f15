"""Everything that a run needs before its first cycle: loaded, packed, and checked against the spec.

Knows what a spec asks of a model and a text together; changes neither.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sentinel.data.loaders.chat import Texts
from sentinel.data.loaders.documents import Documents, load_documents
from sentinel.data.loaders.splits import Packing, Windows, pack_splits, split_training
from sentinel.data.loaders.token_cache import TokenCache, cache_folder, cache_key
from sentinel.data.loaders.windows import start_token
from sentinel.errors import DataInvalid, ExportImpossible, SpecInvalid
from sentinel.locating import NOTHING, locate
from sentinel.models.document_isolation import isolate_documents
from sentinel.models.families.base import Family
from sentinel.models.loaders.load import load_model
from sentinel.models.loaders.tokenizer import doubts
from sentinel.models.optimized.export import resolve_form
from sentinel.models.optimized.gguf import check_gguf
from sentinel.models.probes import Probe, draw_probes
from sentinel.models.task_evaluation import Tasks, load_tasks
from sentinel.prune_spec import Prune
from sentinel.pruning.fine_tuning.fine_tuner import sequences_per_step
from sentinel.pruning.pruning_module import PruningModule
from sentinel.spec import Spec
from sentinel.stress_spec import IN_DOMAIN, Stress
from sentinel.utils.device import resolve_device

# By which healing is measured while it lasts; four forward passes.
HELD_OUT_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A text that models are trained and measured on; windows are (windows, sequence_length) on the device.

    Attributes:
        name: `data` for the spec's own, else as `evaluate.stress` calls it.
        training: To learn it.
        evaluation: Of documents that `training` does not hold.
        text: What is evaluated on, for people.
    """

    name: str
    training: torch.Tensor
    evaluation: torch.Tensor
    text: str


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that is loaded before the first cycle; windows are (windows, sequence_length) on the device.

    Attributes:
        calibration: Windows of the training text, evenly from all of it.
        held_out: Others, taken in the same way, to measure by on the way; none where the spec does not ask for it.
        training: The rest, for healing and stress tests; none where the spec asks for neither.
        evaluation: Of text that neither of them holds.
        text: What was evaluated on, for people.
        domains: The texts of `evaluate.stress`, by name.
        probes: Of `evaluate.stress`, drawn from the evaluation text; none where the spec does not ask for them.
        doubts: What suggests that the tokenizer is not the model's, for people.
    """

    dense: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family
    calibration: torch.Tensor
    held_out: torch.Tensor
    training: torch.Tensor
    evaluation: torch.Tensor
    text: str
    domains: Mapping[str, Domain]
    probes: Sequence[Probe]
    tasks: Tasks
    doubts: Sequence[str]


def load_inputs(
    spec: Spec,
    *,
    allowed_roots: Sequence[Path] | None,
    fetched: Mapping[str, Path] = NOTHING,
    admit: Callable[[Path], None] = lambda _: None,
) -> Inputs:
    """Load the tasks, the model, once `admit` has seen its folder, and pack the text.

    Raises:
        SentinelError: As `locate`, `load_tasks`, `load_model`, `load_documents`, `pack_splits`, `split_training` and
            `draw_probes` say; or the windows are too long.
    """
    located = locate(spec, fetched)
    readable = None if allowed_roots is None else [*allowed_roots, *fetched.values()]
    device = resolve_device(spec.device)
    tasks = load_tasks(spec.evaluate, device=device, allowed_roots=allowed_roots)
    dense, tokenizer, family = load_model(
        located.model, device=device, dtype=located.model.dtype, allowed_roots=readable, admit=admit
    )
    for name, text in {IN_DOMAIN: spec.data, **spec.evaluate.domains}.items():
        _check_length(text.sequence_length, dense, where=name)
    if spec.data.isolate_documents:
        isolate_documents(dense, start_token(tokenizer))
    documents = load_documents(located.data, allowed_roots=readable)
    windows = _windows(documents, tokenizer, _packing(spec))
    calibration, held_out, training = split_training(
        windows.training,
        calibration=spec.prune.calibration_sequences,
        held_out=_held_out_windows(spec),
        heals=spec.heal is not None,
    )
    dense.requires_grad_(requires_grad=False)
    return Inputs(
        dense=dense,
        tokenizer=tokenizer,
        family=family,
        calibration=calibration.to(device),
        held_out=held_out.to(device),
        training=training.to(device),
        evaluation=windows.evaluation.to(device),
        text=_describe(documents.description, windows),
        domains={
            name: _domain(spec, name, tokenizer, device=device, allowed_roots=readable)
            for name in spec.evaluate.domains
        },
        probes=_probes(spec, windows.evaluation, tokenizer),
        tasks=tasks,
        doubts=doubts(tokenizer, dense),
    )


def own_evaluation(windows: torch.Tensor, stress: Stress) -> torch.Tensor:
    """The first of the evaluation windows, as many as a stress test measures."""
    return windows[: max(1, stress.tokens // windows.shape[1])]


def _probes(spec: Spec, evaluation: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> list[Probe]:
    stress = spec.evaluate.stress
    if stress is None or stress.probes is None:
        return []
    return draw_probes(
        own_evaluation(evaluation, stress),
        start=start_token(tokenizer),
        special=tokenizer.all_special_ids,
        count=stress.probes.sequences,
        seed=spec.seed,
    )


def _domain(
    spec: Spec,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: torch.device,
    allowed_roots: Sequence[Path] | None,
) -> Domain:
    stress, section = spec.evaluate.stress, spec.evaluate.domains[name]
    assert stress is not None  # noqa: S101 - there are no domains without it
    training = stress.alternation_tokens if name == stress.other_domain else 0
    packing = Packing(
        sequence_length=section.sequence_length,
        training_limit=max(1, training // section.sequence_length),
        evaluation_limit=max(1, stress.tokens // section.sequence_length),
        isolated=spec.data.isolate_documents,
    )
    documents = load_documents(section, allowed_roots=allowed_roots)
    windows = _windows(documents, tokenizer, packing)
    return Domain(
        name=name,
        training=windows.training.to(device),
        evaluation=windows.evaluation.to(device),
        text=_describe(documents.description, windows),
    )


def _packing(spec: Spec) -> Packing:
    return Packing(
        sequence_length=spec.data.sequence_length,
        training_limit=_training_windows(spec),
        evaluation_limit=max(1, spec.evaluate.tokens // spec.data.sequence_length),
        isolated=spec.data.isolate_documents,
    )


def _windows(documents: Documents, tokenizer: PreTrainedTokenizerBase, packing: Packing) -> Windows:
    """Of an earlier run, if it kept them; text without a digest is not worth keeping."""
    training, evaluation = (Texts(split, tokenizer) for split in (documents.train, documents.evaluation))
    pack = partial(pack_splits, training, evaluation, tokenizer, packing)
    if documents.content is None:
        return pack()
    return TokenCache(folder=cache_folder()).windows(cache_key(documents.content, tokenizer, packing), pack)


def _training_windows(spec: Spec) -> int | None:
    """As many windows as calibration and the steps of warm-up and healing can use; None for all.

    What a stress test trains on is what healing sees; without healing there are windows for it alone.
    """
    if spec.heal is None:
        stress = spec.evaluate.stress
        tokens = max(stress.alternation_tokens, stress.healing_tokens) if stress else 0
        return spec.prune.calibration_sequences + tokens // spec.data.sequence_length
    if spec.heal.epochs is not None:
        return None
    # What grows learns in between on windows that its cycle's healing has read: it takes no more of them.
    steps = spec.prune.cycles * spec.heal.steps + (spec.heal.before.steps if spec.heal.before else 0)
    healing = steps * sequences_per_step(spec.heal, spec.data.sequence_length)
    return spec.prune.calibration_sequences + _held_out_windows(spec) + healing


def _held_out_windows(spec: Spec) -> int:
    """Of the training text, for what is judged on the way; evaluation's own text must not choose among weights."""
    if spec.heal is None or not (spec.heal.evaluate_every or spec.grow or spec.controller):
        return 0
    return max(1, HELD_OUT_TOKENS // spec.data.sequence_length)


def _describe(text: str, windows: Windows) -> str:
    if not windows.left_out:
        return text
    return f"{text}, without {windows.left_out} document(s) that are training documents too"


def _check_length(sequence_length: int, model: PreTrainedModel, *, where: str) -> None:
    longest = getattr(model.config, "max_position_embeddings", sequence_length)
    if sequence_length > longest:
        raise DataInvalid(
            f"{where}.sequence_length is {sequence_length}, but the model reads {longest} tokens at most."
        )


def check_inputs(spec: Spec, inputs: Inputs) -> None:
    """Refuse what is bound to fail at the end, before hours are spent on it.

    Raises:
        SpecInvalid: The target cannot be reached, or removes nothing; a protected layer is not there.
        ExportImpossible: The form cannot express what will be left.
    """
    prune = spec.prune
    _check_layers(prune, inputs)
    module = PruningModule(inputs.dense, inputs.family)
    calibration = module.calibration(inputs.calibration, prune, seed=spec.seed)
    left = module.plan(calibration, prune)
    if prune.target.sparsity != 0 and left == module.dense_counts:
        raise SpecInvalid(
            f"prune.target.{prune.target.kind} {prune.target.value:g} removes nothing from layers of "
            f"{module.dense_counts} groups. Ask for more to go, or lower prune.mlp_block."
        )
    # A controller protects the layers that it lets grow, and what the others lose meanwhile does not come back.
    even = prune.allocation == "uniform" and not prune.protected_layers and not (spec.controller and spec.grow)
    if even:
        resolve_form(inputs.dense.config, left, spec.export.form)
    elif spec.export.form == "stock":
        raise ExportImpossible(
            "A stock class needs equal counts in every layer; this allocation, the protected layers, or a controller "
            "that protects what grows make them differ."
        )
    if spec.export.gguf:
        check_gguf(inputs.dense.config, inputs.tokenizer, left, may_differ=not even and left != module.dense_counts)


def _check_layers(prune: Prune, inputs: Inputs) -> None:
    count = len(inputs.family.layers(inputs.dense))
    if strangers := [layer for layer in prune.protected_layers if layer >= count]:
        raise SpecInvalid(f"prune.protected_layers names {strangers}; the model has layers 0 to {count - 1}.")
