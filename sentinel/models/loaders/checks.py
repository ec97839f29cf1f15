"""What a model folder must pass before anything in it is loaded: its files, its architecture, and its size.

Of the weights it reads the headers, and it runs no code. What the files may be and say is in `sentinel.model_files`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from sentinel.errors import ModelInvalid, ModelUnsupported
from sentinel.model_files import check_files, check_weight_names, is_own_checkpoint, read_config
from sentinel.model_shape import read_shape
from sentinel.models.families import family_of
from sentinel.models.families.base import Family

__all__ = ["CheckedFolder", "check_folder", "check_size", "check_weight_names"]

# Of the parameters that a config describes, as many as there are in the weights may be missing: the loader names them.
_LARGEST_EXCESS = 2


@dataclass(frozen=True, kw_only=True)
class CheckedFolder:
    """A folder that is safe to load from.

    Attributes:
        path: The folder.
        config: Its config.json.
        family: Where its groups live.
        uneven: Whether it is one of our own checkpoints whose layers differ in their counts.
    """

    path: Path
    config: Mapping[str, Any]
    family: Family
    uneven: bool


def check_folder(path: Path) -> CheckedFolder:
    """Refuse whatever could run code, fetch code, or is not a model that Sentinel knows.

    Raises:
        ModelNotFound, ModelInvalid, ModelUnsafe: As `read_config` and `check_files` say.
        ModelUnsupported: An architecture without a family, or as they say.
    """
    config = read_config(path)
    uneven = is_own_checkpoint(config)
    family = _check_architecture(config, uneven=uneven)
    check_files(path)
    return CheckedFolder(path=path, config=config, family=family, uneven=uneven)


def _check_architecture(config: Mapping[str, Any], *, uneven: bool) -> Family:
    family = family_of(config.get("model_type"))
    named = config.get("architectures") or []
    named = set(map(str, named if isinstance(named, list) else [named]))
    if not uneven and named and not family.architectures & named:
        raise ModelUnsupported(
            f"The architecture {', '.join(sorted(named))} is not supported; "
            f"supported for {config['model_type']} are {', '.join(sorted(family.architectures))}."
        )
    if "per_layer_config" in config and not uneven:
        raise ModelUnsupported("The model's layers differ (`per_layer_config`), and Sentinel did not write it.")
    return family


def check_size(folder: CheckedFolder, described: PreTrainedModel) -> None:
    """Refuse a config that describes a model far beyond its weights, for which transformers would find the memory.

    Args:
        folder: Where the weights are.
        described: The model that its config describes, without memory of its own (on the device `meta`).

    Raises:
        ModelInvalid: It does.
    """
    parameters = sum(parameter.numel() for parameter in described.parameters())
    stored = read_shape(folder.path).parameters
    if parameters > _LARGEST_EXCESS * stored:
        raise ModelInvalid(f"config.json describes a model of {parameters:,} parameters; the weights hold {stored:,}.")
