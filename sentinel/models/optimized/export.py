"""Writes a pruned model so that plain `transformers` loads it.

Knows the three forms: `stock` (a class of transformers expresses it), `remote_code` (layers differ; a
modelling file travels along) and `masked` (dense shapes, zeros for what was removed).
"""

import inspect
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sentinel.errors import ExportImpossible
from sentinel.models.families import adaptations, family_of
from sentinel.models.families.base import UNITS, Family, Unit

Form = Literal["stock", "remote_code", "masked"]
RequestedForm = Literal["auto", "stock", "remote_code", "masked"]
Counts = Mapping[Unit, Sequence[int]]

_REMOTE_CODE = Path(__file__).parent / "remote_code" / "modeling_sentinel.py"
_OWN_IMPORT = "from sentinel.models.families.adaptations import adapt\n"


def resolve_form(config: PreTrainedConfig, counts: Counts, form: RequestedForm) -> Form:
    """The form that a model with `counts` groups, per unit and layer, will be exported in; needs no weights.

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
    kept: Mapping[Unit, Sequence[Sequence[int]]],
) -> Form:
    """Write the model, its tokenizer and its generation settings; safetensors only.

    Args:
        model: The model after surgery; it is not changed.
        tokenizer: Saved along.
        family: Where the model's groups live.
        form: What was asked for.
        dtype: Name of the torch type of the saved weights.
        directory: Where to; replaced as a whole once everything is written.
        kept: Per unit and layer, the places among the config's groups that the model's groups came from, in order.

    Returns:
        The form that was used.

    Raises:
        ExportImpossible: The form cannot express the model. Nothing was written.
        ValueError: `kept` does not name one place per group.
    """
    counts = {unit: family.counts(model, unit) for unit in UNITS}
    if {unit: [len(groups) for groups in layers] for unit, layers in kept.items()} != counts:
        raise ValueError(f"The model has {counts} groups per layer; `kept` names others.")
    used = _form_of(model, family, counts, form)
    config = _stock_config(model.config, counts) if used == "stock" else _copy(model.config)
    state = _masked_state(model, family, kept) if used == "masked" else model.state_dict()
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    cast = _cast(state, getattr(torch, dtype))
    # transformers renames tensors of some stock classes (gpt_neox) when it saves and loads them, of remote code never.
    model.save_pretrained(unfinished, state_dict=cast, save_original_format=used != "remote_code")
    tokenizer.save_pretrained(unfinished)
    fields: dict[str, Any] = {"architectures": [_stock_class(config)], "dtype": dtype}
    if used == "remote_code":
        fields |= _uneven_fields(model, family)
        (unfinished / f"{_remote_module(config)}.py").write_text(_remote_code(config), encoding="utf-8")
    _write_config(unfinished, config, fields)
    _publish(unfinished, directory)
    return used


def _form_of(model: PreTrainedModel, family: Family, counts: Counts, form: RequestedForm) -> Form:
    """`resolve_form` of a model that may have exchanged heads whose places matter, which no stock class knows of."""
    used = resolve_form(model.config, counts, form)
    places = list(range(family.dense_count(model.config, "attention")))
    moved = [i for i, of in enumerate(family.layers(model)) if adaptations.groups_in(of) not in (None, places)]
    if used != "stock" or not moved:
        return used
    if form == "stock":
        raise ExportImpossible(
            f"The heads of the layers {moved} come from other places than a stock {model.config.model_type} gives them."
        )
    return "remote_code"


def _stock_config(config: PreTrainedConfig, counts: Counts) -> PreTrainedConfig:
    for unit, layers in counts.items():
        if len(set(layers)) != 1 or 0 in layers:
            raise ExportImpossible(
                f"A stock class needs the same number of {unit} groups in every layer, at least one; "
                f"these are {list(layers)}."
            )
    return family_of(config.model_type).stock_config(config, {unit: layers[0] for unit, layers in counts.items()})


def _copy(config: PreTrainedConfig) -> PreTrainedConfig:
    return type(config).from_dict(config.to_dict())


def _masked_state(
    model: PreTrainedModel, family: Family, kept: Mapping[Unit, Sequence[Sequence[int]]]
) -> dict[str, Tensor]:
    """Dense shapes: groups at the places they came from; zeros for the others and for what went with them."""
    state = model.state_dict()
    names = {module: name for name, module in model.named_modules()}
    for unit, layers in kept.items():
        dense_count = family.dense_count(model.config, unit)
        if any(group >= dense_count for groups in layers for group in groups):
            raise ExportImpossible(
                f"The model has more groups than {dense_count} per layer: the masked form has no place for some."
            )
        for layer, groups in enumerate(layers):
            # A layer whose heads' places matter knows them itself, whatever it was loaded from.
            known = adaptations.groups_in(family.layers(model)[layer]) if unit == "attention" else None
            for part in family.parts(model, layer, unit):
                for name, value in part.widened(known or groups, num_groups=dense_count).items():
                    state[f"{names[part.module]}.{name}"] = value
    for name, dense in _dense(model).state_dict().items():
        if name not in state or state[name].shape != dense.shape:
            state[name] = torch.zeros(dense.shape, dtype=model.dtype)
    return state


def _dense(model: PreTrainedModel) -> PreTrainedModel:
    """The model as its config makes it, without weights."""
    with torch.device("meta"), no_init_weights():
        return type(model)(_copy(model.config))


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tied tensors stay one tensor, or they would be written twice."""
    cast: dict[tuple[int | str, torch.Size], Tensor] = {}
    # All tensors without elements lie at address 0.
    keys = {name: (value.data_ptr() or name, value.shape) for name, value in state.items()}
    for name, value in state.items():
        cast.setdefault(keys[name], value.to(dtype))
    return {name: cast[key] for name, key in keys.items()}


def _uneven_fields(model: PreTrainedModel, family: Family) -> dict[str, Any]:
    """What config.json says beyond the dense config: `per_layer_config` as transformers defines it, and the rest.

    `resized` and `adaptations` are what our modelling file reads; the latter has a module's path and its adaptation.
    The stock config class loads the former only with `allow_global_per_layer_attribute_access`, so that a
    later transformers, whose stock models read `per_layer_config`, needs no remote code.
    """
    config, module = model.config, _remote_module(model.config)
    counts = [
        dict(zip(UNITS, layer, strict=True)) for layer in zip(*(family.counts(model, u) for u in UNITS), strict=True)
    ]
    overrides = {str(layer): family.layer_overrides(config, count) for layer, count in enumerate(counts)}
    return {
        "architectures": [f"Sentinel{_stock_class(config)}"],
        "auto_map": {
            "AutoConfig": f"{module}.Sentinel{type(config).__name__}",
            "AutoModelForCausalLM": f"{module}.Sentinel{_stock_class(config)}",
        },
        "per_layer_config": {layer: changed for layer, changed in overrides.items() if changed},
        "allow_global_per_layer_attribute_access": True,
        "resized": _resized(model),
        "adaptations": adaptations.found_in(model),
        **({"head_dim": family.head_dim(config)} if family.explicit_head_dim else {}),
        # What `per_layer_config` names must have a value for the whole model, too.
        **({} if family.neurons_key else {"intermediate_size": family.neurons(config)}),
    }


def _resized(model: PreTrainedModel) -> dict[str, list[int] | int | None]:
    """Every parameter's shape and every whole number of a module that is not as the dense config makes it."""
    now = dict(model.named_modules())
    found: dict[str, list[int] | int | None] = {}
    for path, module in _dense(model).named_modules():
        if path in now:
            sizes = _sizes(now[path])
            found |= {f"{path}.{name}": sizes[name] for name, size in _sizes(module).items() if sizes[name] != size}
        elif path.rpartition(".")[0] in now:
            found[path] = None
    return found


def _sizes(module: nn.Module) -> dict[str, list[int] | int]:
    shapes: dict[str, list[int] | int] = {
        name: list(parameter.shape) for name, parameter in module.named_parameters(recurse=False)
    }
    return shapes | {name: value for name, value in vars(module).items() if type(value) is int}


def _remote_module(config: PreTrainedConfig) -> str:
    return f"modeling_sentinel_{config.model_type}"


def _remote_code(config: PreTrainedConfig) -> str:
    """The modelling file, written for Llama, with this config's stock classes and the source of what it imports."""
    code = _REMOTE_CODE.read_text(encoding="utf-8")
    ours, docstring = inspect.getsource(adaptations), adaptations.__doc__
    code = code.replace(_OWN_IMPORT, ours.removeprefix(f'"""{docstring}"""').strip() + "\n\n")
    return code.replace("LlamaForCausalLM", _stock_class(config)).replace("LlamaConfig", type(config).__name__)


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
