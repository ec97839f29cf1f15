"""Writes a pruned model as one GGUF file, which llama.cpp and what is built on it load.

Knows llama.cpp's names, metadata and rotation of the Llama-like classes; the vocabulary is another file's.
Most of llama.cpp's architectures take the first layer's counts for every layer. `deci`, which computes what `llama`
does, reads each layer's own; it is used where the counts differ.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    quantize,
)
from gguf.tensor_mapping import get_tensor_name_map
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sentinel.errors import ExportImpossible
from sentinel.models.families import family_of
from sentinel.models.families.base import UNITS, Unit
from sentinel.models.optimized.gguf_vocabulary import add_vocabulary, read_vocabulary

Counts = Mapping[Unit, Sequence[int]]

# Model type → llama.cpp's architecture where all layers have the same counts, and where they differ, if there is one.
_ARCHITECTURES: Mapping[str, tuple[MODEL_ARCH, MODEL_ARCH | None]] = {
    "llama": (MODEL_ARCH.LLAMA, MODEL_ARCH.DECI),
    "mistral": (MODEL_ARCH.LLAMA, MODEL_ARCH.DECI),
    "qwen2": (MODEL_ARCH.QWEN2, MODEL_ARCH.DECI),
    "qwen3": (MODEL_ARCH.QWEN3, None),
}
# These rotate neighbouring features of a head, where the others, as transformers, rotate its halves.
_INTERLEAVED = frozenset({MODEL_ARCH.LLAMA, MODEL_ARCH.DECI})
# These take the hidden size for that of all heads together.
_SQUARE = frozenset({MODEL_ARCH.QWEN2})
# Neurons of zeros in place of an MLP without any, for llama.cpp would skip such a layer's attention, too. As many as
# most quantizations take at once.
_STAND_IN_NEURONS = 32
_TYPES = {
    "float32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "float16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bfloat16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
}


def check_gguf(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    counts: Counts | None = None,
    *,
    may_differ: bool = False,
) -> None:
    """Refuse what a GGUF file cannot express; needs no weights.

    Args:
        config: Of the dense model.
        tokenizer: Its tokenizer.
        counts: Groups, per unit and layer, that will be left; None for all of them.
        may_differ: Whether others may be left, too, that differ from layer to layer.

    Raises:
        ExportImpossible: The class, its positions, counts that differ in this class, or the tokenizer.
    """
    family = family_of(config.model_type)
    dense: Counts = {unit: [family.dense_count(config, unit)] * config.num_hidden_layers for unit in UNITS}
    architecture = _architecture(config, counts or dense)
    if may_differ:
        _uneven_architecture(config)
    _check_rope(config, architecture)
    read_vocabulary(tokenizer, size=config.vocab_size)


def write_gguf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, dtype: str, path: Path) -> None:
    """Write the model with its vocabulary.

    Args:
        model: The model after surgery; it is not changed.
        tokenizer: Its tokenizer.
        dtype: Name of the torch type that all weights are rounded to. Vectors are stored as float32 all the same,
            as llama.cpp wants them.
        path: The file; replaced once everything is written.

    Raises:
        ExportImpossible: As `check_gguf` says. Nothing was written.
    """
    family = family_of(model.config.model_type)
    counts: Counts = {unit: family.counts(model, unit) for unit in UNITS}
    architecture = _architecture(model.config, counts)
    _check_rope(model.config, architecture)
    vocabulary = read_vocabulary(tokenizer, size=model.get_input_embeddings().weight.shape[0])
    unfinished = path.with_name(f"{path.name}.unfinished")
    writer = GGUFWriter(unfinished, MODEL_ARCH_NAMES[architecture])
    writer.add_file_type(_TYPES[dtype][1])
    _add_sizes(writer, model.config, counts)
    _add_rope(writer, model.config)
    add_vocabulary(writer, vocabulary)
    _write_tensors(writer, lambda: _tensors(model, architecture, counts), dtype)
    writer.close()
    unfinished.replace(path)


def _architecture(config: PreTrainedConfig, counts: Counts) -> MODEL_ARCH:
    if config.model_type not in _ARCHITECTURES:
        raise _refusal(f"it is a {config.model_type} model; {', '.join(_ARCHITECTURES)} can be")
    if config.hidden_act != "silu":
        raise _refusal(f"llama.cpp has no such class with the activation {config.hidden_act}")
    even, _ = _ARCHITECTURES[config.model_type]
    if all(len(set(layers)) == 1 and layers[0] > 0 for layers in counts.values()) and not (
        even in _SQUARE and counts["attention"][0] * _group_width(config) != config.hidden_size
    ):
        return even
    return _uneven_architecture(config)


def _uneven_architecture(config: PreTrainedConfig) -> MODEL_ARCH:
    _, uneven = _ARCHITECTURES[config.model_type]
    if uneven is None:
        raise _refusal(f"its layers differ, and llama.cpp knows no {config.model_type} model whose layers do")
    return uneven


def _check_rope(config: PreTrainedConfig, architecture: MODEL_ARCH) -> None:
    kind = config.rope_parameters["rope_type"]
    if kind not in ("default", "linear") and not (kind == "llama3" and architecture in _INTERLEAVED):
        raise _refusal(f"llama.cpp does not know positions of the type {kind} in this class")


def _refusal(reason: str) -> ExportImpossible:
    return ExportImpossible(f"The model cannot be written as GGUF: {reason}.", next_step="Leave `export.gguf` out.")


def _add_sizes(writer: GGUFWriter, config: PreTrainedConfig, counts: Counts) -> None:
    family = family_of(config.model_type)
    groups = [count or _stand_in_groups(layer, config) for layer, count in enumerate(counts["attention"])]
    # llama.cpp's classes have no sliding window; texts that fit into it need none.
    window = getattr(config, "sliding_window", None) or config.max_position_embeddings
    writer.add_context_length(min(window, config.max_position_embeddings))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(_one_or_all([count * family.queries_per_kv_head(config) for count in groups]))
    writer.add_head_count_kv(_one_or_all(groups))
    writer.add_feed_forward_length(_one_or_all([count or _STAND_IN_NEURONS for count in counts["mlp"]]))
    writer.add_key_length(family.head_dim(config))
    writer.add_value_length(family.head_dim(config))
    writer.add_rope_dimension_count(family.head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _stand_in_groups(layer: int, config: PreTrainedConfig) -> int:
    """Groups of zeros in place of an attention without any.

    llama.cpp knows layers without attention, but takes the size of a head from the first one, and has no place for
    what is left of an attention whose output projection has a bias.
    """
    return 1 if layer == 0 or getattr(config, "attention_bias", False) else 0


def _one_or_all(values: Sequence[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else list(values)


def _add_rope(writer: GGUFWriter, config: PreTrainedConfig) -> None:
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def _frequency_divisors(config: PreTrainedConfig) -> Tensor:
    """(head_dim/2,): the plain rotary frequencies over those of the config."""
    width = family_of(config.model_type).head_dim(config)
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    frequencies, _ = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config, torch.device("cpu"))
    return plain / frequencies


def _tensors(model: PreTrainedModel, architecture: MODEL_ARCH, counts: Counts) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under llama.cpp's name, laid out as it wants it."""
    config = model.config
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    if config.rope_parameters["rope_type"] == "llama3":
        yield "rope_freqs.weight", _frequency_divisors(config)
    for name, tensor in _named(model, counts):
        renamed = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if renamed is None:
            raise _refusal(f"llama.cpp has no name for its tensor {name}")
        whole = _stand_in(name, tensor, config) if 0 in tensor.shape else tensor
        rotated = architecture in _INTERLEAVED and ("q_proj" in name or "k_proj" in name)
        yield renamed, _interleaved(whole, family_of(config.model_type).head_dim(config)) if rotated else whole


def _named(model: PreTrainedModel, counts: Counts) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors, without the tied one and those of attentions that are left out."""
    left_out = tuple(
        f"model.layers.{layer}.{part}."
        for layer, count in enumerate(counts["attention"])
        if not count and not _stand_in_groups(layer, model.config)
        for part in ("self_attn", "input_layernorm")
    )
    for name, tensor in model.state_dict().items():
        tied = name == "lm_head.weight" and model.config.tie_word_embeddings
        if not tied and not name.startswith(left_out):
            yield name, tensor


def _stand_in(name: str, tensor: Tensor, config: PreTrainedConfig) -> Tensor:
    """Zeros for a tensor without elements: as if one group were left, or a few neurons."""
    if ".mlp." in name:
        size = _STAND_IN_NEURONS
    else:
        of_queries = "q_proj" in name or "o_proj" in name
        size = _group_width(config) if of_queries else family_of(config.model_type).head_dim(config)
    return tensor.new_zeros([length or size for length in tensor.shape])


def _group_width(config: PreTrainedConfig) -> int:
    """Features of a group's query heads."""
    family = family_of(config.model_type)
    return family.head_dim(config) * family.queries_per_kv_head(config)


def _interleaved(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows (heads x head_dim, …) of halves a0 a1 … b0 b1 … as a0 b0 a1 b1 …, in every head."""
    halves = tensor.reshape(-1, 2, head_dim // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _write_tensors(writer: GGUFWriter, tensors: Callable[[], Iterator[tuple[str, Tensor]]], dtype: str) -> None:
    """Announce all, then write one after the other, so that no second copy of the model is in memory."""
    for name, tensor in tensors():
        kind = _kind(tensor, dtype)
        size = tensor.numel() * (4 if kind == GGMLQuantizationType.F32 else 2)
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _name, tensor in tensors():
        rounded = tensor.detach().to("cpu", getattr(torch, dtype)).float().numpy()
        writer.write_tensor_data(quantize(rounded, _kind(tensor, dtype)))


def _kind(tensor: Tensor, dtype: str) -> GGMLQuantizationType:
    return _TYPES[dtype][0] if tensor.ndim > 1 else GGMLQuantizationType.F32
