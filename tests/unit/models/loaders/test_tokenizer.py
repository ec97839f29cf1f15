import shutil

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from sentinel.errors import DataInvalid, TokenizerInvalid
from sentinel.models.loaders.load import load_model
from sentinel.models.loaders.tokenizer import check_vocabulary, doubts, generate, load_tokenizer
from sentinel.spec import PathModel
from tests.unit.models.conftest import CONFIGS, make_loaded, make_tokenizer

PROMPTS = ["once upon a time there was a girl", "the dog saw", "mom", "then they went home and the cat said ,"]


def test_padded_batches_generate_what_single_prompts_do(variant):
    model, tokenizer, _ = make_loaded(variant)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    together = generate(model, tokenizer, PROMPTS, max_new_tokens=10)
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=10)[0] for prompt in PROMPTS]
    assert together == alone
    assert len(set(together)) > len(PROMPTS) // 2


def test_a_prompt_may_hold_the_token_that_pads():
    """Pad = eos: only an explicit attention mask tells the prompt's own end token from padding."""
    model, tokenizer, _ = make_loaded("gpt2")
    prompts = [f"{tokenizer.eos_token} the dog", "mom said to her big red cat"]
    together = generate(model, tokenizer, prompts, max_new_tokens=10)
    assert together == [generate(model, tokenizer, [prompt], max_new_tokens=10)[0] for prompt in prompts]
    ids = tokenizer([prompts[0]], return_tensors="pt")["input_ids"]
    assert (ids == tokenizer.pad_token_id).sum() == 1
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, pad_token_id=0)
    assert together[0] == tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)


def test_only_the_continuation_is_returned():
    model, tokenizer, _ = make_loaded("llama-gqa")
    text = generate(model, tokenizer, ["once upon a time"], max_new_tokens=5)[0]
    assert 0 < len(text.split()) <= 5


def test_prompts_beyond_the_models_positions_are_refused():
    model, tokenizer, _ = make_loaded("gpt2")
    with pytest.raises(DataInvalid, match="60 tokens and 5 new ones exceed the model's 64"):
        generate(model, tokenizer, ["dog " * 60], max_new_tokens=5)


def test_the_tokenizer_of_gpt2_pads_with_its_end_token(shared_models):
    tokenizer = load_tokenizer(shared_models / "gpt2-tokenizer", config=GPT2Config())
    batch = tokenizer(["Once upon a time there was", "A dog"], padding=True, return_tensors="pt")
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("<|endoftext|>", "left")
    assert batch["input_ids"][1, 0] == tokenizer.eos_token_id
    assert batch["attention_mask"][1].tolist() == [0, 0, 0, 0, 1, 1]


def test_a_pad_token_of_its_own_is_kept(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = "a"
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path, config=CONFIGS["gpt2"]).pad_token == "a"


def test_a_tokenizer_without_an_end_token_is_invalid(saved_models, tmp_path):
    folder = shutil.copytree(saved_models / "gpt2", tmp_path / "model")
    AutoTokenizer.from_pretrained(folder, eos_token=None).save_pretrained(folder)
    with pytest.raises(TokenizerInvalid, match="no end-of-text"):
        load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")


def test_a_missing_tokenizer_is_not_replaced_by_an_empty_one(saved_models, tmp_path):
    folder = shutil.copytree(saved_models / "gpt2", tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(TokenizerInvalid, match=r"needs one of tokenizer\.json"):
        load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")


def test_a_damaged_tokenizer_is_invalid(saved_models, tmp_path):
    folder = shutil.copytree(saved_models / "gpt2", tmp_path / "model")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerInvalid, match="does not load"):
        load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")


def small_model(**config):
    return GPT2LMHeadModel(GPT2Config(**{"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8, **config}))


def test_a_tokenizer_with_more_ids_than_the_model_embeds_is_invalid(saved_models, tmp_path):
    with pytest.raises(
        TokenizerInvalid, match=r"21 token\(s\) beyond the 10 that the model embeds, first 'cat' \(10\)"
    ):
        check_vocabulary(make_tokenizer(), small_model(vocab_size=10))
    folder = shutil.copytree(saved_models / "llama", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(TokenizerInvalid, match=r"first '\[PAD\]' \(31\)") as refused:
        load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")
    assert "resize_token_embeddings" in refused.value.instance_next_step


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"vocab_size": 31, "bos_token_id": 0, "eos_token_id": 0}, []),
        ({"vocab_size": 33, "bos_token_id": None, "eos_token_id": [0, 7]}, []),
        (
            {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 7},
            ["The tokenizer knows 31 tokens, the model embeds 40"],
        ),
        ({"vocab_size": 31, "bos_token_id": 5, "eos_token_id": 0}, [r"tokenizer's BOS, '<|endoftext|>' (0); .* is 5"]),
        (
            {"vocab_size": 31, "bos_token_id": None, "eos_token_id": [0, 50256]},
            ["eos_token_id is 50256; the model embeds 31"],
        ),
    ],
)
def test_what_suggests_another_tokenizer_is_said_and_chat_models_are_not_suspected(config, found):
    said = doubts(make_tokenizer(), small_model(**config))
    assert len(said) == len(found)
    for text, part in zip(said, found, strict=True):
        for piece in part.split(".*"):
            assert piece in text


def test_the_models_at_hand_raise_no_doubts(shared_models):
    folders = [file.parent for file in shared_models.glob("*/config.json")]
    assert folders
    for folder in folders:
        model, tokenizer, _ = load_model(PathModel(path=str(folder)), device="cpu", dtype="float32")
        assert doubts(tokenizer, model) == []
