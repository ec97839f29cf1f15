"""Our own checkpoints whose layers differ: rebuilt from `per_layer_config`, their code file never run."""

from collections.abc import Mapping, Sequence

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from sentinel.errors import ModelInvalid
from sentinel.models.families.adaptations import adapt, found_in
from sentinel.models.families.base import UNITS, Unit
from sentinel.models.loaders.checks import CheckedFolder, check_size
from sentinel.models.optimized.insertion import MOST_GROWTH, origin

# What export adds to the stock config (see optimized/export.py).
UNEVEN_KEYS = frozenset(
    {"auto_map", "per_layer_config", "allow_global_per_layer_attribute_access", "resized", "adaptations"}
)


def rebuild(folder: CheckedFolder, config: PreTrainedConfig, *, dtype: torch.dtype) -> PreTrainedModel:
    """The stock class of `config`, cut to the folder's counts, with the folder's weights.

    Raises:
        ModelInvalid: The counts or the tensors do not fit the architecture.
    """
    layers = _counts(folder, config)
    stock = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]

    def build(model: PreTrainedModel, config: PreTrainedConfig) -> None:
        stock.__init__(model, config)
        _cut(model, layers, folder)
        check_size(folder, model)

    # A subclass, so that transformers fills in and ties the weights; from then on it is what any cut model is.
    cut: type[PreTrainedModel] = type(stock.__name__, (stock,), {"__init__": build})
    model, report = cut.from_pretrained(
        folder.path,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    for problem in ("missing_keys", "unexpected_keys"):
        if names := sorted(report[problem]):
            raise ModelInvalid(f"The weights have {len(names)} {problem.replace('_', ' ')}, first {names[0]!r}.")
    model.__class__ = stock
    return model


def _cut(model: PreTrainedModel, layers: Sequence[Mapping[Unit, int]], folder: CheckedFolder) -> None:
    family = folder.family
    adapted = {module for path, module in model.named_modules() if path in folder.config.get("adaptations", {})}
    for layer, counts in enumerate(layers):
        # A layer with as many heads as the dense model's may have other ones.
        exchanged = not adapted.isdisjoint(family.attention(model, layer).modules())
        for unit, count in counts.items():
            dense_count = family.dense_count(model.config, unit)
            if count != dense_count or (unit == "attention" and exchanged):
                family.keep_groups(model, layer, unit, [origin(group, dense_count) for group in range(count)])
    _restore_adaptations(model, folder)


def _counts(folder: CheckedFolder, config: PreTrainedConfig) -> list[dict[Unit, int]]:
    family, num_layers = folder.family, config.num_hidden_layers
    overrides = {int(layer): values for layer, values in folder.config["per_layer_config"].items()}
    if strangers := overrides.keys() - range(num_layers):
        raise ModelInvalid(f"`per_layer_config` names layers {sorted(strangers)} of {num_layers}.")
    layers = [family.counts_of(config, overrides.get(layer, {})) for layer in range(num_layers)]
    for unit in UNITS:
        dense_count = family.dense_count(config, unit)
        if not all(0 <= counts[unit] <= MOST_GROWTH * dense_count for counts in layers):
            raise ModelInvalid(
                f"`per_layer_config` asks for impossible numbers of {unit} groups: a layer has 0 to "
                f"{MOST_GROWTH} × {dense_count}."
            )
    return layers


def _restore_adaptations(model: PreTrainedModel, folder: CheckedFolder) -> None:
    """The cut kept the first groups of each layer; the checkpoint knows which ones its groups were."""
    saved = folder.config.get("adaptations", {})
    if _forms(found_in(model)) != _forms(saved):
        raise ModelInvalid("`adaptations` in config.json do not fit `per_layer_config`.")
    dense_count = folder.family.dense_count(model.config, "attention")
    for path, adaptation in saved.items():
        groups = adaptation.get("groups", [])
        if not set(groups) <= set(range(dense_count)):
            raise ModelInvalid(f"`adaptations` in config.json name groups {groups} of {dense_count}.")
        adapt(model.get_submodule(path), **adaptation)


def _forms(value: object) -> object:
    """A JSON document with every whole number replaced by its type."""
    if isinstance(value, dict):
        return {key: _forms(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_forms(item) for item in value]
    return type(value) if type(value) is int else value
