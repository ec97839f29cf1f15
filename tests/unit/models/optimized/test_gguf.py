"""The file is read back and computed with; what llama.cpp could not compute or split alike is refused."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from sentinel.errors import ExportImpossible
from sentinel.models.families import family_of
from sentinel.models.optimized.gguf import check_gguf, write_gguf
from sentinel.models.optimized.gguf_vocabulary import read_vocabulary
from sentinel.models.optimized.surgery import apply_removal
from tests.unit.models.conftest import CONFIGS, EVEN, UNEVEN, make_tokenizer
from tests.unit.models.optimized.gguf_reference import Reference

END = "<|endoftext|>"
IDS = [1, 7, 3, 30, 12, 5, 19, 8]
REMOVALS = {
    "nothing": {},
    "even": EVEN,
    "uneven": UNEVEN,
    "whole": {"attention": {0: range(4), 2: range(4)}, "mlp": {1: range(48)}},
}
ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0},
}


def byte_level(*steps, merges=(("a", "b"), ("ab", "c")), **options):
    letters = [END, *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab", "abc"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(letters)}, list(merges), **options))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps) or [pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return fast(tokenizer, eos_token=END)


def fast(tokenizer, **special):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def make_model(variant, removed=(), rope=None):
    config = copy.deepcopy(CONFIGS[variant])
    if rope:
        config = type(config)(**{**config.to_dict(), "rope_parameters": {**ROPES[rope], "rope_theta": 10000.0}})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    apply_removal(model, family_of(config.model_type), dict(removed))
    return model


def written(model, path, dtype="float32"):
    write_gguf(model, byte_level(), dtype=dtype, path=path / "model.gguf")
    return Reference(path / "model.gguf")


@pytest.mark.parametrize("removed", REMOVALS)
@pytest.mark.parametrize(
    ("variant", "rope"),
    [
        ("llama-gqa", None),
        ("llama-gqa", "linear"),
        ("llama-gqa", "llama3"),
        ("llama-mha-wide", None),
        ("llama-gqa-biased", None),
        ("mistral-gqa", None),
        ("qwen2-gqa", None),
    ],
)
def test_the_file_alone_gives_the_models_logits(variant, rope, removed, tmp_path):
    model = make_model(variant, REMOVALS[removed], rope)
    reference = written(model, tmp_path)
    logits = model(torch.tensor([IDS])).logits[0].detach().numpy()
    assert np.abs(reference.logits(IDS) - logits).max() < 1e-4


@pytest.mark.parametrize("removed", ["nothing", "even"])
def test_norms_of_queries_and_keys_are_written(removed, tmp_path):
    # Within its window; llama.cpp has no other attention for this class.
    model = make_model("qwen3-gqa", REMOVALS[removed])
    reference = written(model, tmp_path)
    assert reference["context_length"] == 4
    logits = model(torch.tensor([IDS[:4]])).logits[0].detach().numpy()
    assert np.abs(reference.logits(IDS[:4]) - logits).max() < 1e-4


def test_counts_are_one_number_or_one_per_layer(tmp_path):
    even, uneven = (written(make_model("llama-gqa", REMOVALS[name]), tmp_path) for name in ("even", "uneven"))
    keys = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
    assert (even.architecture, uneven.architecture) == ("llama", "deci")
    assert [even[key] for key in keys] == [6, 3, 46]
    assert [uneven[key] for key in keys] == [[6, 2, 8], [3, 1, 4], [46, 48, 40]]
    assert uneven["attention.key_length"] == uneven["rope.dimension_count"] == 4
    assert uneven["context_length"] == 64
    whole = written(make_model("llama-gqa", REMOVALS["whole"]), tmp_path)
    assert whole["attention.head_count_kv"] == [1, 4, 0]
    assert not [name for name in whole.tensors if name.startswith("blk.2.attn")]


def test_qwen2_whose_heads_are_fewer_than_its_hidden_size_is_written_as_deci(tmp_path):
    assert written(make_model("qwen2-gqa"), tmp_path).architecture == "qwen2"
    assert written(make_model("qwen2-gqa", EVEN), tmp_path).architecture == "deci"


@pytest.mark.parametrize(("dtype", "kind"), [("float16", "F16"), ("bfloat16", "BF16"), ("float32", "F32")])
def test_weights_are_rounded_as_the_checkpoints_are(dtype, kind, tmp_path):
    model = make_model("qwen2-gqa", REMOVALS["nothing"])
    reference = written(model, tmp_path, dtype)
    state = {name: tensor.to(getattr(torch, dtype)).float().numpy() for name, tensor in model.state_dict().items()}
    names = {"self_attn.q_proj": "attn_q", "self_attn.o_proj": "attn_output", "mlp.down_proj": "ffn_down"}
    for theirs, ours in {**names, "input_layernorm": "attn_norm"}.items():
        assert np.array_equal(reference.tensors[f"blk.1.{ours}.weight"], state[f"model.layers.1.{theirs}.weight"])
    assert np.array_equal(reference.tensors["blk.1.attn_q.bias"], state["model.layers.1.self_attn.q_proj.bias"])
    assert "output.weight" not in reference.tensors  # tied
    assert {reference.kinds["blk.1.attn_q.weight"], reference.kinds["token_embd.weight"]} == {kind}
    assert {reference.kinds["blk.1.attn_q.bias"], reference.kinds["output_norm.weight"]} == {"F32"}
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


def test_the_vocabulary_is_that_of_the_tokenizer(tmp_path):
    fields = written(make_model("llama-gqa"), tmp_path).fields
    assert fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert fields["tokenizer.ggml.tokens"][:3] == [END, "a", "b"]
    assert fields["tokenizer.ggml.tokens"][-1] == "[PAD30]"
    assert fields["tokenizer.ggml.token_type"] == [3, *[1] * 29, 5]
    assert fields["tokenizer.ggml.merges"] == ["a b", "ab c"]
    assert fields["tokenizer.ggml.eos_token_id"] == 0
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.ggml.bos_token_id" not in fields


@pytest.mark.parametrize(
    ("variant", "changes", "reason"),
    [
        ("gpt2", {}, "it is a gpt2 model"),
        ("gemma-gqa", {}, "it is a gemma model"),
        ("llama-gqa", {"hidden_act": "gelu"}, "activation gelu"),
        ("llama-gqa", {"rope_parameters": ROPES["yarn"] | {"rope_theta": 1e4}}, "type yarn"),
        ("qwen2-gqa", {"rope_parameters": ROPES["llama3"] | {"rope_theta": 1e4}}, "type llama3"),
    ],
)
def test_what_llama_cpp_cannot_compute_is_refused(variant, changes, reason):
    config = CONFIGS[variant]
    with pytest.raises(ExportImpossible, match=reason):
        check_gguf(type(config)(**{**config.to_dict(), **changes}), byte_level())


def test_uneven_counts_are_refused_where_no_architecture_has_them(tmp_path):
    with pytest.raises(ExportImpossible, match="qwen3 model whose layers do"):
        written(make_model("qwen3-gqa", UNEVEN), tmp_path)
    assert list(tmp_path.iterdir()) == []


def characters(merges, *, extra=(), prefix=True, spaces=True, byte_fallback=True, pre_tokenizer=None):
    """SentencePiece's BPE as transformers converts it."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *"▁abcd", *extra]
    tokens += ["".join(pair) for pair in merges if "".join(pair) not in tokens]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    bpe = models.BPE(vocabulary, list(merges), unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback)
    tokenizer = Tokenizer(bpe)
    squeeze = normalizers.Replace(Regex(" +"), " ")
    changes = [squeeze, *([normalizers.Prepend("▁")] if prefix else [])]
    tokenizer.normalizer = normalizers.Sequence([*changes, *([normalizers.Replace(" ", "▁")] if spaces else [])])
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteFallback()
    return fast(tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def merged_by_score(text, vocabulary):
    """What llama.cpp does: of all neighbours that make a token, join those of the highest score, leftmost first."""
    score = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    parts = list(("▁" if vocabulary.space_prefix else "") + text.replace(" ", "▁"))
    while pairs := [(score[a + b], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in score]:
        at = -max(pairs)[1]
        parts[at : at + 2] = ["".join(parts[at : at + 2])]
    return [vocabulary.tokens.index(part) for part in parts]


MERGES = [("a", "b"), ("▁", "a"), ("c", "d"), ("▁", "ab"), ("▁a", "b"), ("ab", "cd")]


@pytest.mark.parametrize("text", ["abcd", "ab abcd", "a abab cdcd", "dcba", "aabb a b"])
@pytest.mark.parametrize("prefix", [True, False])
def test_scores_make_llama_cpp_merge_in_the_tokenizers_order(text, prefix):
    tokenizer = characters(MERGES, prefix=prefix)
    vocabulary = read_vocabulary(tokenizer, size=len(tokenizer))
    assert vocabulary.model == "llama"
    assert vocabulary.space_prefix == prefix
    assert merged_by_score(text, vocabulary) == tokenizer(text).input_ids
    assert [int(kind) for kind in vocabulary.types[:5]] == [2, 3, 3, 6, 6]


def unigram(**options):
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -2.0), ("a", -3.0), ("▁a", -2.5)], unk_id=0, **options))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return fast(tokenizer, unk_token="<unk>", eos_token="<unk>")


def test_a_unigram_tokenizer_keeps_its_scores():
    vocabulary = read_vocabulary(unigram(), size=5)
    assert (vocabulary.model, vocabulary.space_prefix, vocabulary.merges) == ("t5", True, None)
    assert vocabulary.scores == [0.0, -2.0, -3.0, -2.5, 0.0]
    assert [int(kind) for kind in vocabulary.types] == [2, 1, 1, 1, 5]


def sentence_start(tokenizer):
    """The tokenizer with a template that puts <s> before the text."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def test_the_start_token_is_added_where_the_tokenizer_adds_it():
    with_start, without = sentence_start(characters(MERGES)), characters(MERGES)
    assert [read_vocabulary(tokenizer, size=300).add_bos for tokenizer in (with_start, without)] == [True, False]


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_other_vocabularies_are_written_with_scores(kind, tmp_path):
    config = LlamaConfig(vocab_size=300, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    tokenizer = characters(MERGES) if kind == "llama" else unigram()
    tokenizer.chat_template = "{{ messages }}"
    write_gguf(AutoModelForCausalLM.from_config(config), tokenizer, dtype="float32", path=tmp_path / "m.gguf")
    fields = Reference(tmp_path / "m.gguf").fields
    vocabulary = read_vocabulary(tokenizer, size=300)
    assert fields["tokenizer.ggml.model"] == kind
    assert fields["tokenizer.ggml.add_space_prefix"] is True
    assert fields["tokenizer.ggml.scores"] == pytest.approx(vocabulary.scores)
    assert fields["tokenizer.chat_template"] == "{{ messages }}"
    assert "tokenizer.ggml.merges" not in fields


def test_llama_cpps_names_for_ways_to_split():
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    llama3 = byte_level(pre_tokenizers.Split(Regex(regex), "isolated"), plain, ignore_merges=True)
    qwen2 = byte_level(pre_tokenizers.Split(Regex(regex.replace("{1,3}", "")), "isolated"), plain)
    qwen2.backend_tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    smollm = byte_level(pre_tokenizers.Digits(individual_digits=True), words)
    names = [read_vocabulary(tokenizer, size=31).pre for tokenizer in (llama3, qwen2, smollm)]
    assert names == ["llama-bpe", "qwen2", "smollm"]


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (make_tokenizer, "of the kind WordLevel"),
        (lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), "splits text by"),
        (lambda: byte_level(pre_tokenizers.Whitespace()), "no tokens for single bytes"),
        (lambda: characters(MERGES, pre_tokenizer=pre_tokenizers.Whitespace()), "splits text by"),
        (lambda: characters(MERGES, pre_tokenizer=pre_tokenizers.Digits(individual_digits=True)), "digits"),
        (lambda: characters(MERGES, spaces=False), "does not mark spaces"),
        (object, "no tokenizer.json"),
        (lambda: byte_level(pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(False)), "split"),
        (lambda: byte_level(ignore_merges=True), "ignore_merges"),
        (lambda: characters(MERGES, byte_fallback=False), "no tokens for single bytes"),
        (lambda: characters(MERGES[:-3] + MERGES[-1:], extra=["▁ab"]), "does not merge all neighbours"),
        (lambda: characters([*MERGES[:4], *MERGES[5:], MERGES[4]]), "order of its merges"),
        (lambda: unigram(byte_fallback=True), "Unigram has no tokens for single bytes"),
    ],
)
def test_what_llama_cpp_would_split_otherwise_is_refused(tokenizer, reason):
    with pytest.raises(ExportImpossible, match=reason):
        read_vocabulary(tokenizer(), size=400)


@pytest.mark.parametrize("tokenizer", [byte_level, lambda: characters(MERGES)])
def test_a_tokenizer_that_changes_text_is_refused(tokenizer):
    lowercase = tokenizer()
    lowercase.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ExportImpossible, match="changes text by"):
        check_gguf(LlamaConfig(vocab_size=300), lowercase)
