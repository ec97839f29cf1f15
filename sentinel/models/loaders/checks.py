"""What a model folder must pass before anything in it is loaded.

Reads JSON and file names only; opens no weights and runs no code. Knows which files could run code
and which keys of a config could fetch some.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentinel.errors import ModelInvalid, ModelNotFound, ModelUnsafe, ModelUnsupported
from sentinel.models.families import family_of
from sentinel.models.families.base import Family

# The modelling files that our own export writes beside uneven checkpoints; never run here.
REMOTE_CODE_PREFIX = "modeling_sentinel_"
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
_INDEX_NAME = "model.safetensors.index.json"
# Configs remember where they were loaded from; nothing is fetched from there.
_PROVENANCE_KEYS = frozenset({"_name_or_path", "name_or_path"})
# owner/name, with an optional @revision or :kernel, or owner/name--file: what transformers would fetch.
_REPOSITORY_ID = re.compile(r"[\w.-]+/[\w.-]+([@:-].*)?")


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
        ModelNotFound: No folder, no config.json or no weights.
        ModelInvalid: A JSON file does not parse, or the weights' index names files that are not there.
        ModelUnsafe: Pickled weights only, `auto_map`, internal keys, foreign repositories, weights outside the folder.
        ModelUnsupported: An architecture without a family, or quantized weights.
    """
    if not path.is_dir():
        raise ModelNotFound(f"There is no model folder at {str(path)!r}.")
    config = _read_json(path / "config.json")
    uneven = _is_own_checkpoint(config)
    _check_config(config, uneven=uneven)
    family = _check_architecture(config, uneven=uneven)
    check_weight_names(file.name for file in path.iterdir())
    _check_index(path)
    _check_neighbours(path)
    return CheckedFolder(path=path, config=config, family=family, uneven=uneven)


def check_weight_names(names: Iterable[str]) -> None:
    """Refuse a set of file names without safetensors weights.

    Raises:
        ModelUnsafe: The weights are pickles only.
        ModelNotFound: There are no weights at all.
    """
    suffixes = {Path(name).suffix for name in names}
    if ".safetensors" in suffixes:
        return
    if pickles := sorted(suffixes & _PICKLE_SUFFIXES):
        raise ModelUnsafe(f"The weights come only as pickles ({', '.join(pickles)}), which can run code when loaded.")
    raise ModelNotFound("The model has no safetensors weights.")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"The model has no {file.name}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelInvalid(f"{file.name} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelInvalid(f"{file.name} must hold a JSON object.")
    return content


def _is_own_checkpoint(config: Mapping[str, Any]) -> bool:
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict) or not isinstance(config.get("per_layer_config"), dict):
        return False
    return all(isinstance(target, str) and target.startswith(REMOTE_CODE_PREFIX) for target in auto_map.values())


def _check_config(config: Mapping[str, Any], *, uneven: bool) -> None:
    for key, value in _entries(config):
        if key == "auto_map" and not (uneven and value is config["auto_map"]):
            raise ModelUnsafe("config.json has an `auto_map`: the model brings its own code, which is never run.")
        if key.endswith("_internal"):
            raise ModelUnsafe(f"config.json sets the internal key `{key}`.")
        if isinstance(value, str) and key not in _PROVENANCE_KEYS and _is_foreign(value, uneven=uneven):
            raise ModelUnsafe(f"config.json refers to another repository: `{key}` is {value!r}.")


def _is_foreign(value: str, *, uneven: bool) -> bool:
    own_code = uneven and value.startswith(REMOTE_CODE_PREFIX)
    return not own_code and ("--" in value or _REPOSITORY_ID.fullmatch(value) is not None)


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth; list items count under the list's key."""
    waiting: list[tuple[str, Any]] = list(document.items())
    while waiting:
        key, value = waiting.pop()
        yield key, value
        if isinstance(value, dict):
            waiting.extend(value.items())
        elif isinstance(value, list):
            waiting.extend((key, item) for item in value)


def _check_architecture(config: Mapping[str, Any], *, uneven: bool) -> Family:
    family = family_of(config.get("model_type"))
    named = config.get("architectures") or []
    if not uneven and named and not family.architectures & set(named):
        raise ModelUnsupported(
            f"The architecture {', '.join(map(str, named))} is not supported; "
            f"supported for {config['model_type']} are {', '.join(sorted(family.architectures))}."
        )
    if "per_layer_config" in config and not uneven:
        raise ModelUnsupported("The model's layers differ (`per_layer_config`), and Sentinel did not write it.")
    if config.get("quantization_config"):
        raise ModelUnsupported("Quantized models cannot be cut; use the unquantized weights of this model.")
    return family


def _check_index(path: Path) -> None:
    """Every shard must be a safetensors file of this very folder."""
    if not (path / _INDEX_NAME).exists():
        return
    shards = _read_json(path / _INDEX_NAME).get("weight_map")
    if not isinstance(shards, dict):
        raise ModelInvalid(f"{_INDEX_NAME} has no `weight_map`.")
    for shard in set(map(str, shards.values())):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise ModelUnsafe(f"{_INDEX_NAME} points outside the folder or to no safetensors file: {shard!r}.")
        if not (path / shard).is_file():
            raise ModelInvalid(f"{_INDEX_NAME} names {shard!r}, which is missing.")


def _check_neighbours(path: Path) -> None:
    """Files beside config.json that could make `transformers` run or fetch something."""
    if (path / "adapter_config.json").exists():
        raise ModelUnsafe(
            "The folder is an adapter (adapter_config.json), whose base model is fetched from elsewhere.",
            next_step="Merge the adapter into its base model and use the merged model.",
        )
    tokenizer_config = path / "tokenizer_config.json"
    if tokenizer_config.exists() and any(key == "auto_map" for key, _ in _entries(_read_json(tokenizer_config))):
        raise ModelUnsafe("tokenizer_config.json has an `auto_map`: the tokenizer brings its own code, never run.")
