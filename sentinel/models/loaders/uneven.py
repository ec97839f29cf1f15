"""Our own checkpoints whose layers differ: rebuilt from `per_layer_config`, their code file never run."""

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils import GENERATION_CONFIG_NAME

from sentinel.errors import ModelInvalid
from sentinel.models.loaders.checks import CheckedFolder

# What export adds to the stock config (see optimized/export.py).
UNEVEN_KEYS = frozenset({"auto_map", "per_layer_config", "allow_global_per_layer_attribute_access"})


def rebuild(folder: CheckedFolder, config: PreTrainedConfig, *, dtype: torch.dtype) -> PreTrainedModel:
    """The stock class at the dense size of `config`, cut to the folder's counts, with the folder's weights.

    Raises:
        ModelInvalid: The counts or the tensors do not fit the architecture.
    """
    counts = _counts(folder, config)
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    for layer, count in enumerate(counts):
        folder.family.keep_groups(model, layer, range(count))
    _fill(model, folder)
    if (folder.path / GENERATION_CONFIG_NAME).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder.path)
    return model


def _counts(folder: CheckedFolder, config: PreTrainedConfig) -> list[int]:
    dense_count = folder.family.dense_count(config)
    named = {int(i): folder.family.count_of(layer) for i, layer in folder.config["per_layer_config"].items()}
    if strangers := named.keys() - range(config.num_hidden_layers):
        raise ModelInvalid(f"`per_layer_config` names layers {sorted(strangers)} of {config.num_hidden_layers}.")
    counts = [named.get(layer, dense_count) for layer in range(config.num_hidden_layers)]
    if not all(1 <= count <= dense_count for count in counts):
        raise ModelInvalid(f"`per_layer_config` asks for {counts} groups per layer; there are {dense_count}.")
    return counts


def _fill(model: PreTrainedModel, folder: CheckedFolder) -> None:
    """Copy every tensor in; only tied ones may be missing."""
    missing = set(model.state_dict())
    for file in sorted(folder.path.glob("*.safetensors")):
        weights = load_file(file)
        report = model.load_state_dict(weights, strict=False)
        if report.unexpected_keys:
            raise ModelInvalid(f"The weights hold an unknown tensor {report.unexpected_keys[0]!r}.")
        missing -= set(weights)
    model.tie_weights()
    if untied := sorted(missing - set(model.all_tied_weights_keys)):
        raise ModelInvalid(f"The weights lack {len(untied)} tensor(s), first {untied[0]!r}.")
