"""From a spec's model section to a model, its tokenizer and its family.

Weights come from safetensors only, code from nowhere: folders are checked first, and our own uneven
checkpoints are rebuilt from `per_layer_config` instead of running the modelling file in them.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sentinel.errors import ModelInvalid
from sentinel.models.families.base import Family
from sentinel.models.loaders.checks import CheckedFolder, check_folder, check_size
from sentinel.models.loaders.hub import download
from sentinel.models.loaders.tokenizer import check_vocabulary, load_tokenizer
from sentinel.models.loaders.uneven import UNEVEN_KEYS, rebuild
from sentinel.paths import BUILTIN_MODELS, check_folder_roots
from sentinel.spec import BuiltinModel, HubModel, ModelSource


class LoadedModel(NamedTuple):
    """A model in evaluation mode, its tokenizer, and where its groups live."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family


def load_model(
    source: ModelSource,
    *,
    device: str | torch.device,
    dtype: str,
    allowed_roots: Sequence[Path] | None = None,
    admit: Callable[[Path], None] = lambda _: None,
) -> LoadedModel:
    """Load what a spec's model section names.

    Args:
        source: Where the model comes from.
        device: Where its weights go.
        dtype: Name of the torch type of its weights.
        allowed_roots: Folders that a path must lie under; None allows any path.
        admit: Called with the checked folder before anything of it is loaded; raises to refuse it.

    Raises:
        PathNotAllowed, ModelNotFound, ModelInvalid, ModelUnsafe, ModelUnsupported, TokenizerInvalid, HubUnreachable:
            As their docstrings say; each before anything was loaded, where that can be known.
    """
    folder = check_folder(_locate(source, allowed_roots))
    admit(folder.path)
    with _as_model_invalid():
        config = _config(folder)
    tokenizer = load_tokenizer(folder.path, config=config)
    with _as_model_invalid():
        load = rebuild if folder.uneven else _load_stock
        model = load(folder, config, dtype=getattr(torch, dtype))
    check_vocabulary(tokenizer, model)
    return LoadedModel(model.to(device).eval(), tokenizer, folder.family)


def _locate(source: ModelSource, allowed_roots: Sequence[Path] | None) -> Path:
    if isinstance(source, HubModel):
        return download(source)
    if isinstance(source, BuiltinModel):
        return BUILTIN_MODELS / source.id
    return check_folder_roots(source.path, allowed_roots)


@contextmanager
def _as_model_invalid() -> Iterator[None]:
    """What transformers, torch and safetensors raise when files are damaged or do not fit."""
    try:
        yield
    except (SafetensorError, StrictDataclassError, OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        raise ModelInvalid(f"The model does not load: {error}") from error


def _config(folder: CheckedFolder) -> PreTrainedConfig:
    """The stock config, from the very document that was checked; of an uneven checkpoint the dense one."""
    stock = {key: value for key, value in folder.config.items() if key not in UNEVEN_KEYS}
    config = CONFIG_MAPPING[folder.config["model_type"]].from_dict(stock)
    folder.family.check_config(config)
    return config


def _load_stock(folder: CheckedFolder, config: PreTrainedConfig, *, dtype: torch.dtype) -> PreTrainedModel:
    with torch.device("meta"):
        check_size(folder, AutoModelForCausalLM.from_config(copy.deepcopy(config)))  # it would settle things in it
    model, report = AutoModelForCausalLM.from_pretrained(
        folder.path,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    # transformers would fill missing tensors with random numbers and only log it.
    if missing := sorted(report["missing_keys"]):
        raise ModelInvalid(f"The weights lack {len(missing)} tensor(s), first {missing[0]!r}.")
    return model
