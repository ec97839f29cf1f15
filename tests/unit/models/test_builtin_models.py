"""The shipped models: they load anywhere, they have learned, and the script makes them again."""

import importlib.util
import json
import math
from pathlib import Path
from statistics import mean
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sentinel.data.stories import split_stories, words

ROOT = Path(__file__).resolve().parents[3]
BUILTIN = ROOT / "sentinel/models/builtin"
FAMILIES = ("gpt2", "llama")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_builtin_models", ROOT / "scripts/train_builtin_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=FAMILIES)
def shipped(request):
    folder = BUILTIN / request.param
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), folder


def test_all_files_fit_in_six_megabytes():
    assert sum(file.stat().st_size for file in BUILTIN.rglob("*") if file.is_file()) <= 6_000_000


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_both_models_share_one_tokenizer(name):
    gpt2, llama = ((BUILTIN / family / name).read_bytes() for family in FAMILIES)
    assert gpt2 == llama


def test_config_names_no_place_and_no_code(shipped):
    _, _, folder = shipped
    config = json.loads((folder / "config.json").read_text())
    assert not {"_name_or_path", "auto_map"} & set(config)
    assert str(ROOT) not in "".join(file.read_text() for file in folder.glob("*.json"))
    assert {file.suffix for file in folder.iterdir()} == {".json", ".safetensors"}


def test_shape_is_the_documented_one(shipped):
    model, _, folder = shipped
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    if folder.name == "llama":
        assert (model.config.num_attention_heads, model.config.num_key_value_heads, model.config.head_dim) == (8, 4, 16)
    else:
        assert (model.config.n_head, model.config.n_embd) == (8, 96)


def test_tokenizer_has_one_special_token_and_no_pad(shipped):
    model, tokenizer, _ = shipped
    assert tokenizer.all_special_tokens == ["<|endoftext|>"]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == model.config.bos_token_id == model.config.eos_token_id
    assert tokenizer.pad_token is None
    assert len(tokenizer) == model.config.vocab_size


def test_tokenizer_gives_back_any_text(shipped):
    _, tokenizer, _ = shipped
    for text in (next(split_stories("evaluation", 1)), "Ünïcode & numbers: 42 , 'quotes' !\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_held_out_loss_is_far_below_counting(script, shipped):
    model, tokenizer, _ = shipped
    stream = script.token_stream(tokenizer, split_stories("train", 4000))
    windows = script.held_out_windows(tokenizer, 60)
    bigram = script.bigram_loss(stream, windows, len(tokenizer))
    assert bigram < script.unigram_loss(stream, windows, len(tokenizer))
    assert script.model_loss(model, windows) < 0.6 * bigram


@torch.inference_mode()
def test_names_told_before_are_looked_up_and_not_guessed(script, shipped):
    model, tokenizer, _ = shipped
    names = {tokenizer(f" {name}")["input_ids"][0] for name in words.GIRLS + words.BOYS}
    losses = []
    for story in split_stories("evaluation", 40):
        tokens = tokenizer("<|endoftext|>" + story, return_tensors="pt")["input_ids"]
        row, log_probability = tokens[0].tolist(), model(input_ids=tokens).logits[0].log_softmax(-1)
        again = [i for i in range(1, len(row)) if row[i] in names and row[i] in row[:i]]
        losses += [-log_probability[i - 1, row[i]].item() for i in again]
    assert len(losses) > 100
    assert mean(losses) < 0.4 * math.log(len(names))


def test_greedy_text_answers_by_the_right_name(script, shipped):
    model, tokenizer, _ = shipped
    prompt = 'Once upon a time, there was a kind girl named Ruby. "Hello, Sam!" said Ruby. "Hello,'
    text = script.sample(model, tokenizer, prompt)
    assert text.removeprefix(prompt).startswith(' Ruby!" said Sam.')


def test_training_again_gives_the_same_bytes(script, tmp_path):
    threads = torch.get_num_threads()
    for run in ("first", "second"):
        small = ["--steps", "2", "--stories", "200", "--batch-tokens", "512"]
        script.train(script.parse_arguments(["--out", str(tmp_path / run), *small]))
    torch.set_num_threads(threads)
    for family in FAMILIES:
        first, second = (
            {f.name: f.read_bytes() for f in (tmp_path / run / family).iterdir()} for run in ("first", "second")
        )
        assert first == second
        assert load_file(tmp_path / "first" / family / "model.safetensors")
