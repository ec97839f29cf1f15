"""The README.md of a checkpoint: what was done to which model, what it cost, and how to load the outcome.

Knows the spec, the result and Markdown as the Hugging Face Hub renders it; no model.
"""

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from sentinel.data_spec import HubData
from sentinel.heal_spec import Heal
from sentinel.manifest import MANIFEST_FILE, Run, Unit, ranges
from sentinel.paths import own_name
from sentinel.prune_spec import Prune
from sentinel.result import CycleRecord, LayerCompensation, Measurement, Result, WarmUpRecord
from sentinel.spec import BuiltinModel, HubModel, PathModel, Spec
from sentinel.stress_spec import IN_DOMAIN

CARD_FILE = "README.md"
PLOTS_FOLDER = "plots"
GGUF_FILE = "model.gguf"
_UNIT_NAMES = {"attention": "attention groups", "mlp": "MLP neurons"}
_REPEATING = (
    f"`{MANIFEST_FILE}` has the whole spec, the versions, the digests of model and text, the groups that are left, and "
    "the result."
)
_COSTS = {
    "sparsity": "groups",
    "parameters": "parameters",
    "flops": "FLOPs per token",
    "kv_bytes": "KV bytes per token",
    "latency_ms": "latency, ms",
}
_LOADING = {
    "stock": "A class of `transformers` loads it.",
    "remote_code": "Its layers differ, so it brings its own modelling file, which needs nothing but `torch` and "
    "`transformers`.",
    "masked": "It has the dense model's shapes, with zeros for what was removed: a class of `transformers` loads it, "
    "and it is neither smaller nor faster than the dense model.",
}


def write_card(checkpoint: Path, run: Run, *, plots: Path) -> None:
    """Write the card into the checkpoint's folder, and copy the plots there that it shows.

    Args:
        checkpoint: The folder, with everything that the card describes.
        run: What the card is about.
        plots: Folder of the run's pictures.
    """
    pictures = sorted(plots.glob("*.png"))
    (checkpoint / PLOTS_FOLDER).mkdir(exist_ok=True)
    for picture in pictures:
        shutil.copyfile(picture, checkpoint / PLOTS_FOLDER / picture.name)
    spec, result = run.spec, run.result
    sections = {
        "Before and after": _comparison(result),
        "Tasks": _tasks(spec, result),
        "Under stress": _stress(spec, result),
        "Evaluation protocol": _protocol(result),
        "What was done": _deeds(spec, result),
        "What the controller decided": _decisions(result.cycles),
        "Merged groups": _merged(result.cycles),
        "Growth": _growth(result.cycles),
        "What is left of each layer": _layers(run),
        "Compensation": _compensation(result.cycles),
        "How to load it": _loading(result, has_gguf=(checkpoint / GGUF_FILE).exists()),
        "Samples": _samples(spec, result),
        "Plots": "\n\n".join(f"![{file.stem.replace('_', ' ')}]({PLOTS_FOLDER}/{file.name})" for file in pictures),
        "Repeating it": _REPEATING,
    }
    top = f"{_front_matter(spec)}\n\n# {_title(spec)}\n\n{_summary(spec, result)}"
    rest = [f"## {heading}\n\n{text}" for heading, text in sections.items() if text]
    (checkpoint / CARD_FILE).write_text("\n\n".join([top, *rest]) + "\n", encoding="utf-8")


def _front_matter(spec: Spec) -> str:
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sentinel", "pruned", "structured-pruning"],
    }
    if isinstance(spec.model, HubModel):
        fields["base_model"] = spec.model.id
    if isinstance(spec.data, HubData):
        fields["datasets"] = [spec.data.id]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _model_name(spec: Spec) -> str:
    if isinstance(spec.model, PathModel):
        return own_name(spec.model.path)
    return f"builtin/{spec.model.id}" if isinstance(spec.model, BuiltinModel) else spec.model.id


def _title(spec: Spec) -> str:
    return _plain(spec.name or "") or _plain(f"{_model_name(spec)}, pruned")


def _plain(text: str) -> str:
    """Text that is no Markdown: on one line, nothing in it a link, a table or HTML, at its beginning no list."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#~&" else c for c in " ".join(text.split()))
    return re.sub(r"^(\d*)([-+.)])", r"\1\\\2", escaped)


def _summary(spec: Spec, result: Result) -> str:
    dense, pruned = result.dense, result.pruned
    share = 1 - pruned.parameters / dense.parameters
    return (
        f"{_plain(_model_name(spec))} with {share:.1%} of its parameters removed by structured pruning. On held-out "
        f"text its loss is {pruned.loss:.4f} nats per token, the dense model's {dense.loss:.4f}."
    )


def _comparison(result: Result) -> str:
    dense, pruned = result.dense, result.pruned
    rows = [[name, text.format(a), text.format(b), _change(a, b)] for name, text, a, b in _measures(dense, pruned)]
    kl = ["KL(dense ‖ pruned), nats per token", "", f"{pruned.kl_to_dense:.4f}", ""]
    agreement = ["same first choice as the dense model", "", f"{pruned.agreement:.1%}", ""]
    return _table(["", "dense", "pruned", "change"], [*rows[:2], kl, agreement, *rows[2:]])


def _measures(dense: Measurement, pruned: Measurement) -> list[tuple[str, str, float, float]]:
    """Name, format, dense, pruned."""
    return [
        ("loss, nats per token", "{:.4f}", dense.loss, pruned.loss),
        ("perplexity", "{:.2f}", dense.perplexity, pruned.perplexity),
        ("parameters", "{:,}", dense.parameters, pruned.parameters),
        ("attention groups", "{:,}", dense.groups.attention, pruned.groups.attention),
        ("MLP neurons", "{:,}", dense.groups.mlp, pruned.groups.mlp),
        ("key-value cache, bytes per token", "{:,}", dense.kv_bytes_per_token, pruned.kv_bytes_per_token),
        ("forward pass over one window, ms", "{:.2f}", dense.latency_ms, pruned.latency_ms),
    ]


def _change(dense: float, pruned: float) -> str:
    return f"{(pruned - dense) / dense:+.1%}" if dense else ""


def _tasks(spec: Spec, result: Result) -> str:
    if not result.tasks:
        return ""
    rows = [[_plain(found.task), found.metric, f"{found.documents:,}", *found.cells()] for found in result.tasks]
    of_each = "" if spec.evaluate.task_limit is None else f", the first {spec.evaluate.task_limit:,} documents of each"
    return f"Both models, by lm_eval{of_each}; ± is the standard error.\n\n" + _table(
        ["task", "metric", "documents", "dense", "pruned", "change"], rows
    )


def _stress(spec: Spec, result: Result) -> str:
    if result.stress is None or spec.evaluate.stress is None:
        return ""
    stress = spec.evaluate.stress
    texts = "; ".join(f"`{record.domain}`, {_plain(record.text)}" for record in result.stress.domains[1:])
    intro = (
        f"Both models under the same conditions. `{IN_DOMAIN}` is the evaluation text; other texts: {texts}. What is "
        f"trained are copies, by cross-entropy, learning rate {stress.learning_rate:g}, {stress.batch_tokens:,} tokens "
        "per step. ± is the standard error over windows or sequences."
    )
    tables = [f"{_plain(found.title)}:\n\n{_table(found.header, found.rows)}" for found in result.stress.tables()]
    return "\n\n".join([intro, *tables])


def _protocol(result: Result) -> str:
    protocol = result.protocol
    return (
        f"{_plain(protocol.description)}\n\nText: {_plain(protocol.text)}; {protocol.windows} windows of "
        f"{protocol.sequence_length} tokens, {protocol.tokens:,} predictions. Neither calibration nor healing saw it. "
        "Two losses compare only under the same protocol."
    )


def _deeds(spec: Spec, result: Result) -> str:
    lines = [
        *_warm_up(result.warm_up),
        *_pruning(spec.prune, len(result.cycles)),
        _healing(spec.heal),
        f"Seed: {spec.seed}",
        result.memory.sentence().removesuffix("."),
    ]
    cycles = _table(
        ["cycle", "loss after the cut", "loss after healing", "what counts", "goal", "predicted", "measured"],
        [
            [
                str(record.cycle),
                f"{record.loss_before_healing:.4f}",
                f"{record.loss:.4f}" if spec.heal else "",
                _COSTS[record.cost.kind],
                *map(_number, (record.cost.goal, record.cost.predicted, record.cost.measured)),
            ]
            for record in result.cycles
        ],
    )
    return "\n".join(f"- {line}" for line in lines) + "\n\n" + cycles


def _number(value: float) -> str:
    """A share, a time, or a size, which has no powers of ten."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"


def _pruning(prune: Prune, cycles: int) -> list[str]:
    mix = " (" + ", ".join(f"{name} {weight:g}" for name, weight in prune.mix.items()) + ")" if prune.mix else ""
    return [
        f"Units: {', '.join(prune.units)}",
        f"Strategy: {prune.strategy}{mix}; allocation: {prune.allocation}",
        f"Target: {prune.target.kind.replace('_', ' ')} {_number(prune.target.value)}",
        f"Cycles: {cycles} of {prune.cycles}, schedule {prune.schedule.replace('_', ' ')}",
        f"Compensation: {(prune.compensation or 'none').replace('_', ' ')}",
        *(
            [f"Merging: groups of a layer whose outputs have a cosine of ±{prune.merge:g} or more"]
            if prune.merge
            else []
        ),
        f"Search: {f'{prune.search.evaluations} evaluations per cycle' if prune.search else 'none'}",
        f"Calibration: {prune.calibration_sequences} windows",
    ]


def _warm_up(record: WarmUpRecord | None) -> list[str]:
    if record is None:
        return []
    losses = f"from loss {record.loaded_loss:.4f} as loaded to {record.loss:.4f}"
    what = f"Warm-up: {record.steps:,} steps of cross-entropy before the first cut, {losses}"
    return [f"{what}. “Dense” is the model behind it. {_plain(record.reason)}"]


def _healing(heal: Heal | None) -> str:
    if heal is None:
        return "Healing: none"
    length = f"{heal.steps} steps" if heal.epochs is None else f"{heal.epochs:g} epochs"
    what = f"adapters of rank {heal.lora.rank}, merged" if heal.method == "lora" else "all weights"
    return f"Healing: {heal.loss.replace('_', ' ')}, {what}, {length} per cycle, learning rate {heal.learning_rate:g}"


def _decisions(cycles: Sequence[CycleRecord]) -> str:
    rows = [
        [
            str(record.cycle),
            record.decision.action,
            f"{record.decision.progress:.0%}",
            f"{record.decision.grow:.1%}",
            f"{record.decision.steps:,}",
            _plain(record.decision.reason),
        ]
        for record in cycles
        if record.decision
    ]
    return _table(["cycle", "action", "of the way", "groups to grow", "healing steps", "reason"], rows) if rows else ""


def _merged(cycles: Sequence[CycleRecord]) -> str:
    """Attention groups by name; of neurons, which would fill pages, the number per layer."""
    rows = []
    for record in cycles:
        merged = [*record.merged, *(record.growth.merged if record.growth else ())]
        for unit, layer in dict.fromkeys((item.unit, item.layer) for item in merged):
            here = [item for item in merged if (item.unit, item.layer) == (unit, layer)]
            names = ", ".join(f"{item.group} into {item.partner}" for item in here)
            which = names if unit == "attention" else f"{len(here)} neurons"
            least = min(abs(item.cosine) for item in here)
            rows.append([str(record.cycle), unit, str(layer), which, f"{least:.4f}"])
    return _table(["cycle", "unit", "layer", "merged", "least cosine, ±"], rows) if rows else ""


def _growth(cycles: Sequence[CycleRecord]) -> str:
    rows = [
        [
            str(record.cycle),
            record.growth.strategy.replace("_", " "),
            "; ".join(
                f"{unit}, layer {layer}: {ranges(sorted(groups))}"
                for unit, layers in record.growth.grown.items()
                for layer, groups in layers.items()
            ),
            "stands" if record.growth.accepted else "undone",
            "not finite" if record.growth.loss_after is None else f"{record.growth.loss_after:.4f}",
            f"{record.growth.loss_without:.4f}",
            _plain(record.growth.reason),
        ]
        for record in cycles
        if record.growth
    ]
    header = ["cycle", "strategy", "groups", "outcome", "loss with", "loss without", "reason"]
    return _table(header, rows) if rows else ""


def _layers(run: Run) -> str:
    rows = [
        [
            str(layer),
            *(_left(unit, groups, run.dense_counts[unit][layer]) for unit, groups in zip(run.kept, left, strict=True)),
        ]
        for layer, left in enumerate(zip(*run.kept.values(), strict=True))
    ]
    return _table(["layer", *(_UNIT_NAMES[unit] for unit in run.kept)], rows)


def _left(unit: Unit, groups: Sequence[int], dense_count: int) -> str:
    """How many of how many, and of attention groups which; neurons would fill pages."""
    count = f"{len(groups)} of {dense_count}"
    return count if unit == "mlp" or len(groups) in (0, dense_count) else f"{count}: {ranges(groups)}"


def _compensation(cycles: Sequence[CycleRecord]) -> str:
    """The last repair of every projection and layer; the manifest has them all."""
    last = {(item.layer, item.unit): (cycle, item) for cycle in cycles for item in cycle.compensation}
    if not last:
        return ""
    rows = [
        [str(layer), unit, str(record.cycle), *_repair(item)]
        for (layer, unit), (record, item) in sorted(last.items(), key=lambda entry: entry[0])
    ]
    return (
        "The last repair of each output projection, and of each layer as a whole: its error on the calibration text, "
        "relative to the energy of its target; of a last layer as a whole, KL(uncut ‖ cut) in nats per token.\n\n"
        + _table(["layer", "unit", "cycle", "before the repair", "after it", "ridge"], rows)
    )


def _repair(item: LayerCompensation) -> list[str]:
    ridge = "" if item.ridge is None else f"{item.ridge:g}"
    return [f"{item.error_before:.3e}", f"{item.error_after:.3e}", ridge]


def _loading(result: Result, *, has_gguf: bool) -> str:
    # The tokenizer has no code, but reads the config, and the stock class of that warns of layers that differ.
    option = ", trust_remote_code=True" if result.export_form == "remote_code" else ""
    code = (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'folder = "path/to/this/folder"\n'
        f"model = AutoModelForCausalLM.from_pretrained(folder{option})\n"
        f"tokenizer = AutoTokenizer.from_pretrained(folder{option})\n```"
    )
    gguf = f"\n\nWith llama.cpp: `llama-cli -m {GGUF_FILE} -p 'Once upon a time'`." if has_gguf else ""
    return f"{_LOADING[result.export_form]}\n\n{code}{gguf}"


def _samples(spec: Spec, result: Result) -> str:
    """Greedy continuations, indented, so that nothing in them is Markdown."""
    texts = zip(spec.evaluate.prompts, result.dense.samples, result.pruned.samples, strict=True)
    return "\n\n".join(
        f"{_plain(prompt)} …\n\ndense:\n\n{_indented(dense)}\n\npruned:\n\n{_indented(pruned)}"
        for prompt, dense, pruned in texts
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
