"""What the files of a model folder may be and may say before anything of it is loaded. Torch-free.

`transformers` takes much from a folder at its word: names of classes and of files, repositories to fetch code from. The
rules here were read off its source; docs/security.md lists them with what each would lead to. Reads JSON documents and
the headers of weights, and runs nothing. Knows no architecture.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sentinel.errors import ModelInvalid, ModelNotFound, ModelUnsafe, ModelUnsupported
from sentinel.safetensors_header import read_header

# The modelling files that our own export writes beside uneven checkpoints; never run here.
REMOTE_CODE_PREFIX = "modeling_sentinel_"
WHOLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
LARGEST_CONFIG_BYTES = 10_000_000
# Of a vocabulary or an index; the largest known have a third of it.
LARGEST_TEXT_BYTES = 100_000_000
# What a model and its tokenizer are uploaded as; whatever else lies beside them is of no use to a service.
MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})

# Configs beside config.json: the generation's and the tokenizer's, and those of processors, which are not loaded.
_NEIGHBOURS = frozenset(
    {"generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "processor_config.json"}
    | {"preprocessor_config.json", "video_preprocessor_config.json"}
)
_TOKENIZER_CONFIGS = frozenset({"tokenizer_config.json", "special_tokens_map.json"})
_TEXT_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken"})
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
# Where it finds such a file, transformers reads the folder as torch.distributed wrote it, and no index at all.
_DISTRIBUTED_SHARD = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")

# Configs remember where they were loaded from; nothing is fetched from there.
_PROVENANCE_KEYS = frozenset({"_name_or_path", "name_or_path"})
# owner/name, with an optional @revision or :kernel, or owner/name--file: what transformers would fetch.
_REPOSITORY_ID = re.compile(r"[\w.-]+/[\w.-]+([@:-].*)?")
_IMPLEMENTATION_KEYS = frozenset(
    {"attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"}
)
# All others are libraries or kernels, which transformers may fetch.
_OWN_IMPLEMENTATIONS = (None, "eager", "sdpa", "grouped_mm", "batched_mm")
_REDIRECTIONS = {
    "configuration_files": "names other files to read in its place",
    "custom_generate": "names code to generate with",
    "fusion_config": "has modules replaced when the model is loaded",
    "transformers_weights": "names other files to take the weights from",
}
# Ways to generate that transformers no longer has: it would fetch their code.
_FETCHED_GENERATION = frozenset({"constraints", "dola_layers", "force_words_ids", "num_beam_groups", "penalty_alpha"})

# Classes that read a vocabulary and nothing else; any name that transformers knows would do, of a model's class too.
_TOKENIZER_CLASSES = frozenset(
    {"TokenizersBackend", "PreTrainedTokenizer", "AlbertTokenizer", "BartTokenizer", "BertTokenizer", "BloomTokenizer"}
    | {"CodeGenTokenizer", "CodeLlamaTokenizer", "CohereTokenizer", "GemmaTokenizer", "GPT2Tokenizer"}
    | {"GPTNeoXTokenizer", "LlamaTokenizer", "Qwen2Tokenizer", "RobertaTokenizer", "T5Tokenizer", "XLMRobertaTokenizer"}
)
# A tokenizer's class is called with whatever its config says. These would be read from wherever they point to.
_TOKENIZER_SOURCES = frozenset({"gguf_file", "init_inputs", "merges", "tokenizer_object", "vocab"})
# Old tokenizers remember where these were; transformers puts the folder's own file in the place of the one, and never
# reads the other.
_IGNORED_FILE_KEYS = frozenset({"special_tokens_map_file", "tokenizer_file"})
_SAVE_TOKENIZER = "Load the tokenizer where you trust it, and save it again with `save_pretrained`."


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says, unless that could run code, or fetch or read anything elsewhere.

    Raises:
        ModelNotFound: No folder, or no config.json.
        ModelInvalid: It does not parse, or is too large.
        ModelUnsafe: `auto_map`, internal keys, foreign repositories, other files.
        ModelUnsupported: Its weights are quantized.
    """
    if not folder.is_dir():
        raise ModelNotFound(f"There is no model folder at {str(folder)!r}.")
    config = read_json(folder / "config.json")
    _check_config(config)
    return config


def check_files(folder: Path) -> None:
    """Refuse other files that could do so, and weights that are not what they say they are.

    Raises:
        ModelNotFound: There are no weights.
        ModelInvalid: A document does not parse, a file is too large, or a header does not fit its file.
        ModelUnsafe: Pickled weights only, configs as `read_config` refuses them, files outside the folder.
        ModelUnsupported: Weights as torch.distributed writes them.
    """
    files = sorted(folder.iterdir())
    for file in files:
        _check_file(file)
    check_weight_names(file.name for file in files)
    _check_headers(weight_files(folder))


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


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: one with all of them, or else those that the index names.

    Raises:
        ModelUnsafe: The index points outside the folder, or to something else than safetensors.
        ModelInvalid: There is no index either, it is damaged, or a file that it names is missing.
    """
    shards = _shards(folder) if (folder / WEIGHTS_INDEX).exists() else []
    # Where both are there, transformers takes the one.
    files = [folder / WHOLE_WEIGHTS] if (folder / WHOLE_WEIGHTS).exists() else shards
    if not files:
        raise ModelInvalid(f"The safetensors files are neither {WHOLE_WEIGHTS} nor named by {WEIGHTS_INDEX}.")
    return files


def _shards(folder: Path) -> list[Path]:
    named = read_json(folder / WEIGHTS_INDEX, largest_bytes=LARGEST_TEXT_BYTES).get("weight_map")
    if not isinstance(named, dict):
        raise ModelInvalid(f"{WEIGHTS_INDEX} has no `weight_map`.")
    names = sorted(set(map(str, named.values())))
    for name in names:
        if not _is_plain_name(name) or not name.endswith(".safetensors"):
            raise ModelUnsafe(f"{WEIGHTS_INDEX} points outside the folder or to no safetensors file: {name!r}.")
        if not (folder / name).is_file():
            raise ModelInvalid(f"{WEIGHTS_INDEX} names {name!r}, which is missing.")
    return [folder / name for name in names]


def is_own_checkpoint(config: Mapping[str, Any]) -> bool:
    """Whether our own export wrote it for layers that differ, with a modelling file for others."""
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict) or not isinstance(config.get("per_layer_config"), dict):
        return False
    return all(isinstance(target, str) and target.startswith(REMOTE_CODE_PREFIX) for target in auto_map.values())


def read_json(file: Path, *, largest_bytes: int = LARGEST_CONFIG_BYTES) -> dict[str, Any]:
    """A JSON object from a file of no more than so many bytes.

    Raises:
        ModelNotFound: There is no such file.
        ModelInvalid: It is too large, does not parse, or holds something else.
    """
    _check_size(file, largest_bytes)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"The model has no {file.name}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelInvalid(f"{file.name} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelInvalid(f"{file.name} must hold a JSON object.")
    return content


def _check_size(file: Path, largest_bytes: int) -> None:
    """Before it is opened: a pipe or a device would have no end."""
    if file.exists() and not file.is_file():
        raise ModelInvalid(f"{file.name} is no regular file.")
    if file.exists() and file.stat().st_size > largest_bytes:
        raise ModelInvalid(f"{file.name} has {file.stat().st_size} bytes; more than {largest_bytes} are not read.")


def _check_config(config: Mapping[str, Any]) -> None:
    """What config.json must not say, at any depth."""
    own = is_own_checkpoint(config)
    for key, value in _entries(config):
        if key == "auto_map" and not (own and value is config["auto_map"]):
            raise ModelUnsafe("config.json has an `auto_map`: the model brings its own code, which is never run.")
        if key == "quantization_config" and value:
            raise ModelUnsupported("Quantized models cannot be cut; use the unquantized weights of this model.")
        if key in _IMPLEMENTATION_KEYS and value not in _OWN_IMPLEMENTATIONS:
            raise ModelUnsafe(f"config.json asks for a kernel that transformers may fetch: `{key}` is {value!r}.")
        if isinstance(value, str) and key not in _PROVENANCE_KEYS and _is_foreign(value, own=own):
            raise ModelUnsafe(f"config.json refers to another repository: `{key}` is {value!r}.")
        _check_entry("config.json", key, value)
    _check_tokenizer_class("config.json", config)


def _check_entry(document: str, key: str, value: object) -> None:
    """What no config may say."""
    if key.endswith("_internal"):
        raise ModelUnsafe(f"{document} sets the internal key `{key}`.")
    if key in _REDIRECTIONS and value is not None:
        raise ModelUnsafe(f"{document} {_REDIRECTIONS[key]}: `{key}`.", next_step=f"Remove `{key}` from {document}.")
    if key in _FETCHED_GENERATION and value and value != 1:
        raise ModelUnsafe(
            f"{document} asks for a way to generate whose code transformers would fetch: `{key}`.",
            next_step=f"Remove `{key}` from {document}.",
        )


def _is_foreign(value: str, *, own: bool) -> bool:
    own_code = own and value.startswith(REMOTE_CODE_PREFIX)
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


def _check_file(file: Path) -> None:
    """One file of the folder by its name, and what it says if it is a config beside config.json."""
    if file.name == "adapter_config.json":
        raise ModelUnsafe(
            "The folder is an adapter (adapter_config.json), whose base model is fetched from elsewhere.",
            next_step="Merge the adapter into its base model and use the merged model.",
        )
    if _DISTRIBUTED_SHARD.fullmatch(file.name):
        raise ModelUnsupported(
            f"{file.name} is a part of a distributed checkpoint.",
            next_step="Load it where you trust it, and save it again with `save_pretrained`.",
        )
    if file.suffix in _TEXT_SUFFIXES:
        _check_size(file, LARGEST_TEXT_BYTES)
    if file.name in _NEIGHBOURS:
        _check_neighbour(file)


def _check_neighbour(file: Path) -> None:
    document = read_json(file)
    for key, value in _entries(document):
        if key == "auto_map":
            raise ModelUnsafe(f"{file.name} has an `auto_map`: it brings its own code, which is never run.")
        _check_entry(file.name, key, value)
    if file.name in _TOKENIZER_CONFIGS:
        _check_tokenizer(file.name, document)


def _check_tokenizer(name: str, document: Mapping[str, Any]) -> None:
    """What would have the tokenizer's class read something else than the folder's vocabulary."""
    _check_tokenizer_class(name, document)
    for key, value in document.items():
        files = value if isinstance(value, list) else [value]
        names_files = key.endswith(("_file", "_files")) and key not in _IGNORED_FILE_KEYS
        elsewhere = names_files and not all(each is None or _is_plain_name(each) for each in files)
        if value and (elsewhere or key in _TOKENIZER_SOURCES):
            raise ModelUnsafe(f"{name} has the tokenizer read something else: `{key}`.", next_step=_SAVE_TOKENIZER)


def _check_tokenizer_class(name: str, document: Mapping[str, Any]) -> None:
    named = document.get("tokenizer_class")
    if named is not None and (not isinstance(named, str) or named.removesuffix("Fast") not in _TOKENIZER_CLASSES):
        raise ModelUnsafe(
            f"{name} asks for a tokenizer that is not known to be harmless: `tokenizer_class` is {named!r}.",
            next_step="Save the tokenizer as a `PreTrainedTokenizerFast`.",
        )


def _is_plain_name(value: object) -> bool:
    """Whether it is the name of a file in the very folder."""
    return isinstance(value, str) and Path(value).name == value and "\\" not in value


def _check_headers(files: Iterable[Path]) -> None:
    """The weights must be what their headers say, and no tensor may be there twice."""
    seen: set[str] = set()
    for file in files:
        names = read_header(file).keys()
        if twice := sorted(names & seen):
            raise ModelInvalid(f"The tensor {twice[0]!r} is in {file.name} and in another file.")
        seen |= names
