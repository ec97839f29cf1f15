"""From a folder that `transformers` loads to a model's architecture and its weights, in float32.

The folder is checked as every model is that Sentinel loads; no code in it is run. Layers of our own checkpoints may
differ in their counts: how many groups a layer has is read off its tensors' shapes.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sentinel.errors import ModelInvalid, ModelUnsupported
from sentinel.model_files import check_files, is_own_checkpoint, read_config, weight_files
from sentinel.pruning.functional.architecture import UNITS, Architecture, Params, Shapes, Weights
from sentinel.pruning.functional.gpt2 import GPT2
from sentinel.pruning.functional.llama import Llama

# By a config's `model_type`.
ARCHITECTURES: Mapping[str, type[Architecture]] = MappingProxyType({"gpt2": GPT2, "llama": Llama, "mistral": Llama})

_HEAD = "lm_head.weight"


def load(folder: Path) -> tuple[Architecture, Params]:
    """Load the model in a folder.

    Raises:
        ModelNotFound, ModelUnsafe: As `read_config` and `check_files` say.
        ModelUnsupported: A type or a variant that is not among `ARCHITECTURES`, weights of 8 bits, or as they say.
        ModelInvalid: The tensors do not fit the config, or as they say.
    """
    config = read_config(folder)
    check_files(folder)
    model = _architecture(config)
    return model, _params(model, _tensors(folder, model))


def _architecture(config: Mapping[str, Any]) -> Architecture:
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise ModelUnsupported(f"Models of type {model_type!r} have no forward pass in JAX; supported are {supported}.")
    if "per_layer_config" in config and not is_own_checkpoint(config):
        raise ModelUnsupported("The model's layers differ (`per_layer_config`), and Sentinel did not write it.")
    try:
        return ARCHITECTURES[model_type].from_config(config)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelInvalid(f"config.json describes no {model_type} model: {error!r}") from error


def _tensors(folder: Path, model: Architecture) -> Weights:
    """Everything stored, by names without the base model's prefix."""
    tensors = {}
    try:
        for file in weight_files(folder):
            for name, value in load_file(file).items():
                tensors[name.removeprefix(model.base_prefix)] = jnp.asarray(value, jnp.float32)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ModelInvalid(f"The weights do not load: {error}") from error
    except AttributeError as error:  # safetensors looks for the type in NumPy
        raise ModelUnsupported(f"Weights of this type are not read here, of 16 to 64 bits are: {error}") from error
    return tensors


def _params(model: Architecture, tensors: Weights) -> Params:
    """The model's own tensors; whatever else is stored plays no part, as in `transformers`."""
    if model.tied:
        # One stands for the other; where both are stored, each is what it is.
        for name, twin in ((_HEAD, model.embedding_name), (model.embedding_name, _HEAD)):
            if twin in tensors:
                tensors.setdefault(name, tensors[twin])
    layers = tuple(_layer(model, tensors, f"{model.layers_prefix}{index}.") for index in range(model.num_layers))
    return Params(layers, _chosen(tensors, model.other_shapes(), ""))


def _layer(model: Architecture, tensors: Weights, prefix: str) -> Weights:
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        counts = [model.output(inside, unit).weight.shape[1] // model.width(unit) for unit in UNITS]
    except LookupError as error:
        raise ModelInvalid(f"The weights lack {prefix}{error.args[0]}, or it is no matrix.") from error
    return _chosen(inside, model.layer_shapes(*counts), prefix)


def _chosen(tensors: Weights, shapes: Shapes, prefix: str) -> Weights:
    for name, shape in shapes.items():
        if name not in tensors:
            raise ModelInvalid(f"The weights lack {prefix}{name}.")
        if tensors[name].shape != shape:
            raise ModelInvalid(f"{prefix}{name} has the shape {tensors[name].shape} in place of {shape}.")
    return {name: tensors[name] for name in shapes}
