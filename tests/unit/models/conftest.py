"""Tiny random models of every family, with a tokenizer that, like GPT-2's, has no pad token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from sentinel.models.families import family_of
from sentinel.models.loaders.load import LoadedModel

WORDS = [
    "once", "upon", "a", "time", "there", "was", "girl", "boy", "dog", "cat", "saw", "big", "red", "ball",
    "and", "then", "they", "went", "home", "happy", ".", ",", "said", "to", "the", "her", "his", "mom", "one", "day",
]  # fmt: skip
END = "<|endoftext|>"
VOCABULARY = {END: 0} | {word: index for index, word in enumerate(WORDS, start=1)}

_SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GROUPED = {**_SIZES, "intermediate_size": 48, "num_attention_heads": 8, "num_key_value_heads": 4}
_GPT2 = {"vocab_size": len(VOCABULARY), "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}

CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(**_GPT2),
    "gpt2-scaled": GPT2Config(**_GPT2, scale_attn_by_inverse_layer_idx=True),
    "llama": LlamaConfig(**_GROUPED),
    "llama-heads": LlamaConfig(**{**_GROUPED, "num_key_value_heads": 8, "head_dim": 6}),
    "llama-biased": LlamaConfig(**_GROUPED, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "mistral": MistralConfig(**_GROUPED, sliding_window=8),
    "qwen2": Qwen2Config(**_GROUPED, tie_word_embeddings=True),
}
# Groups removed from each of the three layers; in every variant a layer has at least four.
UNEVEN = {0: [1], 1: [0, 2, 3]}
EVEN = {0: [1], 1: [3], 2: [0]}


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END, clean_up_tokenization_spaces=False
    )


def make_model(name: str, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> PreTrainedModel:
    """A random model whose biases and norms are random too, so that nothing hides behind zeros and ones."""
    torch.manual_seed(0)
    config = type(CONFIGS[name]).from_dict(CONFIGS[name].to_dict())
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def make_loaded(name: str, **options: object) -> LoadedModel:
    """The same as `load_model` would return, without a folder."""
    tokenizer = make_tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = END, "left"
    return LoadedModel(make_model(name, **options), tokenizer, family_of(CONFIGS[name].model_type))


def survivors(counts: list[int], removed: dict[int, list[int]]) -> list[list[int]]:
    return [[g for g in range(count) if g not in removed.get(layer, ())] for layer, count in enumerate(counts)]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads than free cores make models this small many times slower, here and in subprocesses."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(params=list(CONFIGS))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(1, len(VOCABULARY), (3, 17), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved model for each of gpt2 and llama; copy before you change anything."""
    root = tmp_path_factory.mktemp("saved")
    for name in ("gpt2", "llama"):
        make_model(name).save_pretrained(root / name)
        make_tokenizer().save_pretrained(root / name)
    return root


@pytest.fixture
def shared_models() -> Path:
    folder = Path(__file__).parents[4] / "shared" / "models"
    if not folder.is_dir():
        pytest.skip("the shared models are not beside this checkout")
    return folder
