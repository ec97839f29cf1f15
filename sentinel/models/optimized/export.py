"""Writes a pruned model so that plain `transformers` loads it.

Knows the three forms: `stock` (a class of transformers expresses it), `remote_code` (layers differ; a
modelling file travels along) and `masked` (dense shapes, zeros for what was removed).
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sentinel.errors import ExportImpossible
from sentinel.models.families import family_of
from sentinel.models.families.base import Family, widen_groups

Form = Literal["stock", "remote_code", "masked"]
RequestedForm = Literal["auto", "stock", "remote_code", "masked"]

_REMOTE_CODE = Path(__file__).parent / "remote_code"


def resolve_form(config: PreTrainedConfig, counts: Sequence[int], form: RequestedForm) -> Form:
    """The form that a model with `counts` groups per layer will be exported in; needs no weights.

    Raises:
        ExportImpossible: `stock` was requested and no stock class can express these counts.
    """
    if form in ("remote_code", "masked"):
        return form
    try:
        _stock_config(config, counts)
    except ExportImpossible:
        if form == "stock":
            raise
        return "remote_code"
    return "stock"


def export(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    family: Family,
    form: RequestedForm,
    dtype: str,
    directory: Path,
    kept: Sequence[Sequence[int]],
) -> Form:
    """Write the model, its tokenizer and its generation settings; safetensors only.

    Args:
        model: The model after surgery; it is not changed.
        tokenizer: Saved along.
        family: Where the model's groups live.
        form: What was asked for.
        dtype: Name of the torch type of the saved weights.
        directory: Where to; replaced as a whole once everything is written.
        kept: Per layer, the places among the config's groups that the model's groups came from, in order.

    Returns:
        The form that was used.

    Raises:
        ExportImpossible: The form cannot express the model. Nothing was written.
        ValueError: `kept` does not name one place per group.
    """
    counts = family.counts(model)
    if [len(groups) for groups in kept] != counts:
        raise ValueError(f"The model has {counts} groups per layer; `kept` names {list(map(len, kept))}.")
    used = resolve_form(model.config, counts, form)
    config = _stock_config(model.config, counts) if used == "stock" else _copy(model.config)
    state = _masked_state(model, family, kept) if used == "masked" else model.state_dict()
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished, state_dict=_cast(state, getattr(torch, dtype)))
    tokenizer.save_pretrained(unfinished)
    fields: dict[str, Any] = {"architectures": [_stock_class(config)], "dtype": dtype}
    if used == "remote_code":
        fields |= _uneven_fields(config, family, counts)
        shutil.copy(_REMOTE_CODE / f"{family.remote_module}.py", unfinished)
    _write_config(unfinished, config, fields)
    _publish(unfinished, directory)
    return used


def _stock_config(config: PreTrainedConfig, counts: Sequence[int]) -> PreTrainedConfig:
    if len(set(counts)) != 1:
        raise ExportImpossible(f"A stock class needs the same count in every layer; these are {list(counts)}.")
    return family_of(config.model_type).stock_config(config, counts[0])


def _copy(config: PreTrainedConfig) -> PreTrainedConfig:
    return type(config).from_dict(config.to_dict())


def _masked_state(model: PreTrainedModel, family: Family, kept: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    state = model.state_dict()
    names = {module: name for name, module in model.named_modules()}
    dense_count = family.dense_count(model.config)
    for layer, groups in enumerate(kept):
        for part in family.parts(model, layer):
            for name, value in widen_groups(part, groups, num_groups=dense_count).items():
                state[f"{names[part.module]}.{name}"] = value
    return state


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tied tensors stay one tensor, or they would be written twice."""
    cast: dict[tuple[int, torch.Size], Tensor] = {}
    for value in state.values():
        cast.setdefault((value.data_ptr(), value.shape), value.to(dtype))
    return {name: cast[value.data_ptr(), value.shape] for name, value in state.items()}


def _uneven_fields(config: PreTrainedConfig, family: Family, counts: Sequence[int]) -> dict[str, Any]:
    """What config.json says beyond the dense config, as transformers defines `per_layer_config`.

    The stock config class loads it only with `allow_global_per_layer_attribute_access`, so that a
    later transformers, whose stock models read `per_layer_config`, needs no remote code.
    """
    module, dense_count = family.remote_module, family.dense_count(config)
    layers = {str(i): family.layer_overrides(config, n) for i, n in enumerate(counts) if n != dense_count}
    return {
        "architectures": [f"Sentinel{_stock_class(config)}"],
        "auto_map": {
            "AutoConfig": f"{module}.Sentinel{type(config).__name__}",
            "AutoModelForCausalLM": f"{module}.Sentinel{_stock_class(config)}",
        },
        "per_layer_config": layers,
        "allow_global_per_layer_attribute_access": True,
        "head_dim": family.head_dim(config),
    }


def _stock_class(config: PreTrainedConfig) -> str:
    name: str = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]
    return name


def _write_config(directory: Path, config: PreTrainedConfig, fields: dict[str, Any]) -> None:
    config.save_pretrained(directory)
    file = directory / "config.json"
    content = {**json.loads(file.read_text(encoding="utf-8")), **fields}
    content.pop("_name_or_path", None)
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _publish(unfinished: Path, directory: Path) -> None:
    """Nobody ever sees half a checkpoint."""
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)
