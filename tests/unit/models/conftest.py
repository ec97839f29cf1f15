"""Tiny random models of every family, with a tokenizer that, like GPT-2's, has no pad token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from sentinel.models.families import family_of
from sentinel.models.loaders.load import LoadedModel
from tests.unit.models import configs_classic, configs_gated

WORDS = [
    "once", "upon", "a", "time", "there", "was", "girl", "boy", "dog", "cat", "saw", "big", "red", "ball",
    "and", "then", "they", "went", "home", "happy", ".", ",", "said", "to", "the", "her", "his", "mom", "one", "day",
]  # fmt: skip
END = "<|endoftext|>"
VOCABULARY = {END: 0} | {word: index for index, word in enumerate(WORDS, start=1)}

SHARED_MODELS = Path(__file__).parents[4] / "shared" / "models"
CONFIGS = configs_gated.CONFIGS | configs_classic.CONFIGS
# One variant of every family that the other tests are worth repeating for.
VARIANTS = (
    "gpt2", "bloom", "falcon-grouped", "phi3", "llama-gqa", "olmo2-gqa", "stablelm-gqa-normed", "cohere-gqa-normed",
)  # fmt: skip
# Groups removed from each of the three layers; in every one of those variants a layer has at least four.
UNEVEN = {"attention": {0: [1], 1: [0, 2, 3]}, "mlp": {0: [1, 5], 2: list(range(8))}}
EVEN = {"attention": {0: [1], 1: [3], 2: [0]}, "mlp": {0: [0, 1], 1: [7, 9], 2: [30, 31]}}
UNITS = ("attention", "mlp")


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END, clean_up_tokenization_spaces=False
    )


def make_model(name: str, *, dtype: torch.dtype = torch.float32, attention: str | None = None) -> PreTrainedModel:
    """A random model whose biases and norms are random too, so that nothing hides behind zeros and ones."""
    torch.manual_seed(0)
    config = type(CONFIGS[name]).from_dict(CONFIGS[name].to_dict())
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
            # Not `model.to`, which would round the buffers of rotary positions too; loading does not.
            parameter.data = parameter.data.to(dtype)
    return model.eval()


def make_loaded(name: str, **options: object) -> LoadedModel:
    """The same as `load_model` would return, without a folder."""
    tokenizer = make_tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = END, "left"
    return LoadedModel(make_model(name, **options), tokenizer, family_of(CONFIGS[name].model_type))


def close(gates, removed):
    """Close the gates of groups: unit → layer → groups."""
    for index, site in enumerate(gates.sites):
        for group in removed.get(site.unit, {}).get(site.layer, ()):
            gates.close(index, group)


def counts_of(family, model):
    return {unit: family.counts(model, unit) for unit in UNITS}


def survivors(family, model, removed):
    """Unit → layer → groups that stay, as `export` wants them named; everything where nothing is removed."""
    return {
        unit: [[g for g in range(n) if g not in removed.get(unit, {}).get(layer, ())] for layer, n in enumerate(counts)]
        for unit, counts in counts_of(family, model).items()
    }


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads than free cores make models this small many times slower, here and in subprocesses."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(1, len(VOCABULARY), (3, 17), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved model for each of gpt2 and llama; copy before you change anything."""
    root = tmp_path_factory.mktemp("saved")
    for folder, name in {"gpt2": "gpt2", "llama": "llama-gqa"}.items():
        make_model(name).save_pretrained(root / folder)
        make_tokenizer().save_pretrained(root / folder)
    return root


@pytest.fixture
def shared_models() -> Path:
    if not SHARED_MODELS.is_dir():
        pytest.skip("the shared models are not beside this checkout")
    return SHARED_MODELS
