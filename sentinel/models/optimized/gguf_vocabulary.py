"""A tokenizer in the words of GGUF: the tokens with their kinds, and what llama.cpp splits text by.

Knows three of llama.cpp's tokenizers: BPE over bytes (`gpt2`), SentencePiece's BPE (`llama`) and its Unigram (`t5`).
Refuses what would split text otherwise there than here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerBase

from sentinel.errors import ExportImpossible

_SPACE = "▁"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_THE_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The steps in which tokenizer.json splits text before byte-level BPE → llama.cpp's name of the same.
_SPLITS: Mapping[tuple[str, ...], str] = {
    ("words of GPT-2",): "gpt-2",
    ("digits", "words of GPT-2"): "smollm",
    (_CONTRACTIONS + r"\p{N}{1,3}" + _THE_REST, "bytes"): "llama-bpe",
    (_CONTRACTIONS + r"\p{N}" + _THE_REST, "bytes"): "qwen2",
}
# The one of them that takes a word which is a token as it is, without merging.
_TAKES_WHOLE_WORDS = "llama-bpe"
# What SentencePiece's removal of extra spaces becomes in tokenizer.json.
_RUNS_OF_SPACES = frozenset({" +", " {2,}", r"\A +| +\z"})
# Below every score that a merge gives.
_NO_SCORE = -1e9


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What `tokenizer.ggml.*` says.

    Attributes:
        model: llama.cpp's tokenizer.
        pre: How it splits text first.
        tokens: By id, one per row of the embedding.
        types: One per token.
        scores: One per token; None for `gpt2`.
        merges: In order, the two parts with a space between; None for `llama` and `t5`.
        space_prefix: Whether a space goes before the text.
        add_bos: Whether `bos` goes before it.
        add_eos: Whether `eos` goes after it.
        special_ids: Of `bos`, `eos`, `unk` and `pad`, those that it has.
        chat_template: Jinja, if it has one.
    """

    model: str
    pre: str
    tokens: Sequence[str]
    types: Sequence[TokenType]
    scores: Sequence[float] | None
    merges: Sequence[str] | None
    space_prefix: bool
    add_bos: bool
    add_eos: bool
    special_ids: Mapping[str, int]
    chat_template: str | None


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, *, size: int) -> Vocabulary:
    """The tokenizer's vocabulary, filled up to `size` tokens.

    Raises:
        ExportImpossible: llama.cpp has no tokenizer that splits text as this one does.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal("it has no tokenizer.json")
    document = json.loads(backend.to_str())
    kind = document["model"]["type"]
    if kind not in ("BPE", "Unigram"):
        raise _refusal(f"it is of the kind {kind}")
    read = _unigram if kind == "Unigram" else _byte_level if _is_byte_level(document) else _sentencepiece
    tokens, types = _tokens(document, size)
    sample = tokenizer("a").input_ids
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    return Vocabulary(
        tokens=tokens,
        types=types,
        add_bos=sample[0] == special["bos"],
        add_eos=sample[-1] == special["eos"],
        special_ids={name: token for name, token in special.items() if token is not None},
        chat_template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
        **read(document, tokens, types),
    )


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write it to the metadata."""
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_space_prefix(vocabulary.space_prefix)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    for name, token in vocabulary.special_ids.items():
        getattr(writer, f"add_{name}_token_id")(token)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _refusal(reason: str) -> ExportImpossible:
    return ExportImpossible(f"The tokenizer cannot be written as GGUF: {reason}.", next_step="Leave `export.gguf` out.")


def _parts(step: Mapping[str, Any] | None, inside: str) -> list[Mapping[str, Any]]:
    """The steps of a sequence, or the one that there is, or none."""
    if step is None:
        return []
    return step[inside] if step["type"] == "Sequence" else [step]


def _is_byte_level(document: Mapping[str, Any]) -> bool:
    return any(part["type"] == "ByteLevel" for part in _parts(document["pre_tokenizer"], "pretokenizers"))


def _steps(document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_step(part) for part in _parts(document["pre_tokenizer"], "pretokenizers"))


def _step(step: Mapping[str, Any]) -> str:
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}:
            return "words of GPT-2" if use_regex else "bytes"
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}:
            return str(regex)
        case {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme}:
            return "spaces" if scheme == "never" else "spaces and one before"
    raise _refusal(f"it splits text by {json.dumps(step)}")


def _byte_level(document: Mapping[str, Any], _tokens: Sequence[str], _types: Sequence[TokenType]) -> dict[str, Any]:
    steps, model = _steps(document), document["model"]
    if steps not in _SPLITS:
        raise _refusal(f"llama.cpp does not split text by {list(steps)}")
    pre = _SPLITS[steps]
    if model["ignore_merges"] != (pre == _TAKES_WHOLE_WORDS):
        raise _refusal(f"`ignore_merges` is not what llama.cpp does where it splits text as {pre}")
    # llama.cpp leaves out this normalization of the few characters that can be written in two ways.
    if any(step["type"] != "NFC" for step in _parts(document["normalizer"], "normalizers")):
        raise _refusal(f"it changes text by {json.dumps(document['normalizer'])}")
    merges = [" ".join(pair) for pair in model["merges"]]
    return {"model": "gpt2", "pre": pre, "scores": None, "merges": merges, "space_prefix": False}


def _sentencepiece(document: Mapping[str, Any], tokens: Sequence[str], types: Sequence[TokenType]) -> dict[str, Any]:
    if not document["model"]["byte_fallback"]:
        raise _refusal("it is BPE over characters and has no tokens for single bytes")
    scores = _merge_scores([tuple(pair) for pair in document["model"]["merges"]])
    normal = {token for token, kind in zip(tokens, types, strict=True) if kind is TokenType.NORMAL}
    merged = {pair for token in normal for pair in _halves(token) if normal.issuperset(pair)}
    if merged != {tuple(pair) for pair in document["model"]["merges"]}:
        raise _refusal("it does not merge all neighbours that make a token, as llama.cpp does")
    by_token = [scores.get(token, _NO_SCORE) for token in tokens]
    return {"model": "llama", "pre": "default", "scores": by_token, "merges": None, "space_prefix": _prefix(document)}


def _halves(token: str) -> Iterator[tuple[str, str]]:
    return ((token[:cut], token[cut:]) for cut in range(1, len(token)))


def _merge_scores(merges: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Token → minus its place: llama.cpp makes the pair with the highest score first, whatever its halves."""
    order = ["".join(pair) for pair in merges]
    first = [token for before, token in pairwise(["", *order]) if token != before]
    if len(set(first)) != len(first):
        raise _refusal("the order of its merges is not one of tokens")
    return {token: -float(place) for place, token in enumerate(first)}


def _unigram(document: Mapping[str, Any], tokens: Sequence[str], _types: Sequence[TokenType]) -> dict[str, Any]:
    if document["model"].get("byte_fallback"):
        raise _refusal("llama.cpp's Unigram has no tokens for single bytes")
    scores = dict(document["model"]["vocab"])
    by_token = [scores.get(token, 0.0) for token in tokens]
    return {"model": "t5", "pre": "default", "scores": by_token, "merges": None, "space_prefix": _prefix(document)}


def _prefix(document: Mapping[str, Any]) -> bool:
    """Whether a space goes before the text.

    Runs of spaces are kept by llama.cpp, also where the tokenizer makes one of them.
    """
    steps = [*_steps(document), *(_change(part) for part in _parts(document["normalizer"], "normalizers"))]
    if strange := set(steps) - {"spaces", "one before", "spaces and one before", "fewer spaces"}:
        raise _refusal(f"llama.cpp does not split text by {sorted(strange)}")
    if not {"spaces", "spaces and one before"} & set(steps):
        raise _refusal("it does not mark spaces as SentencePiece does")
    return bool({"one before", "spaces and one before"} & set(steps))


def _change(step: Mapping[str, Any]) -> str:
    match step:
        case {"type": "Prepend", "prepend": "▁"}:
            return "one before"
        case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
            return "spaces"
        case {"type": "Replace", "pattern": {"Regex": regex}, "content": "" | " "} if regex in _RUNS_OF_SPACES:
            return "fewer spaces"
    raise _refusal(f"it changes text by {json.dumps(step)}")


def _tokens(document: Mapping[str, Any], size: int) -> tuple[list[str], list[TokenType]]:
    """Tokens and their kinds, by id; ids that the tokenizer leaves out become unused tokens."""
    model = document["model"]
    vocabulary = model["vocab"]
    ids = vocabulary if isinstance(vocabulary, dict) else {token: i for i, (token, _score) in enumerate(vocabulary)}
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [TokenType.UNUSED] * size
    for token, i in ids.items():
        is_byte = model.get("byte_fallback") and len(token) == 6 and token.startswith("<0x")
        tokens[i], types[i] = token, TokenType.BYTE if is_byte else TokenType.NORMAL
    for added in document["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    unknown = model.get("unk_token", model.get("unk_id"))
    unknown = ids.get(unknown) if isinstance(unknown, str) else unknown
    if unknown is not None:
        types[unknown] = TokenType.UNKNOWN
    return tokens, types
