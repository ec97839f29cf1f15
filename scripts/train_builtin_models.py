"""Train the two tiny models that ship with Sentinel, and their tokenizer, from nothing but a seed.

`python scripts/train_builtin_models.py` writes `sentinel/models/builtin/{gpt2,llama}/`, then loads
both again, measures them on stories that neither has seen, and prints a table, greedy samples and, as
its last line, JSON. `--check` only measures what is there. The same seed on the same machine and torch
gives the same bytes: one thread, one generator, no dropout.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from torch.nn.init import orthogonal_
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from sentinel.data.stories import split_stories

SHIPPED: Final = Path(__file__).resolve().parents[1] / "sentinel/models/builtin"
FAMILIES: Final = ("gpt2", "llama")
END: Final = "<|endoftext|>"
VOCABULARY: Final = 1024
CONTEXT: Final = 256  # tokens
# Up to this share of the steps, windows of this many tokens: nearby names are easier to learn to look up.
LENGTHS: Final = ((0.5, 64), (0.75, 128), (1.0, 256))
EMBEDDING_STD: Final = 0.08  # tokens must stay apart while all names are pulled the same way
COPYING: Final = 0.3  # gain of value times output projection at the start
EVALUATION_STORIES: Final = 500
PROMPTS: Final = ("Once upon a time", "Ruby had a big red ball.", "Omar and Lily wanted to fly a kite on the hill.")


def train_tokenizer(stories: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with one special token, which begins and ends every document; no pad token, as in GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(stories, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def token_stream(tokenizer: PreTrainedTokenizerFast, stories: Iterable[str]) -> torch.Tensor:
    """All stories in one row of token ids, `(tokens,)`, each after a BOS."""
    encoded = tokenizer([END + story for story in stories])["input_ids"]
    return torch.tensor([token for story in encoded for token in story])


def config_of(family: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """The architecture: GPT-2 with 8 heads of 12, or Llama with 8 query heads and 4 KV heads of 16."""
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if family == "gpt2":
        return GPT2Config(
            vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=96, n_layer=4, n_head=8,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, summary_first_dropout=0.0, **ends,
        )  # fmt: skip
    return LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, hidden_size=128, intermediate_size=288,
        num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, head_dim=16,
        tie_word_embeddings=True, **ends,
    )  # fmt: skip


@torch.no_grad()
def initialise_for_copying(model: PreTrainedModel) -> None:
    """Let every head begin as a copier: its output projection is the transpose of its value projection.

    Stories are told apart by who and what they are about; a head that copies from the first step has only
    to learn where to look (after Trockman and Kolter 2023, mimetic initialisation).
    """
    model.get_input_embeddings().weight.normal_(std=EMBEDDING_STD)
    for layer in model.base_model.h if model.config.model_type == "gpt2" else model.base_model.layers:
        if model.config.model_type == "gpt2":
            hidden = model.config.n_embd
            value = orthogonal_(torch.empty(hidden, hidden), gain=COPYING**0.5)
            layer.attn.c_attn.weight[:, -hidden:] = value
            layer.attn.c_proj.weight.copy_(value.T)
        else:
            head_dim, sharing = layer.self_attn.head_dim, layer.self_attn.num_key_value_groups
            value = orthogonal_(layer.self_attn.v_proj.weight, gain=COPYING**0.5)
            of_query_heads = value.unflatten(0, (-1, head_dim)).repeat_interleave(sharing, 0).flatten(0, 1)
            layer.self_attn.o_proj.weight.copy_(of_query_heads.T)


def optimizer_of(model: PreTrainedModel, learning_rate: float) -> torch.optim.AdamW:
    """AdamW; vectors and embeddings do not decay, and embeddings move at half the rate."""
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.dim() > 1 and p is not embedding]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
        {"params": [embedding], "weight_decay": 0.0, "lr": learning_rate / 2},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)


def next_token_loss(
    model: PreTrainedModel, windows: torch.Tensor, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean nats per predicted token: all but the first of every window."""
    logits = model(input_ids=windows, position_ids=positions).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten())


def batches(stream: torch.Tensor, steps: int, batch_tokens: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Windows of the stream that start anywhere, short ones first, at any position of the context.

    Yields:
        Token ids and positions, `(windows, length)` each; windows x length is `batch_tokens`.
    """
    for step in range(steps):
        length = next(length for end, length in LENGTHS if step < end * steps)
        windows = stream.unfold(0, length, 1)
        count = max(1, batch_tokens // length)
        starts = torch.randint(CONTEXT - length + 1, (count, 1))
        yield windows[torch.randint(len(windows), (count,))], starts + torch.arange(length)


def train_model(config: PreTrainedConfig, stream: torch.Tensor, arguments: argparse.Namespace) -> PreTrainedModel:
    """Fit a new model to the stream."""
    torch.manual_seed(arguments.seed)
    model = AutoModelForCausalLM.from_config(config).train()
    initialise_for_copying(model)
    optimizer = optimizer_of(model, arguments.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, arguments.steps // 50, arguments.steps)
    for step, (windows, positions) in enumerate(batches(stream, arguments.steps, arguments.batch_tokens)):
        loss = next_token_loss(model, windows, positions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"{config.model_type} step {step} loss {loss.item():.3f}", flush=True)
    return model.eval()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write what `from_pretrained` needs; `generate` pads with the end token."""
    end = tokenizer.eos_token_id
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def held_out_windows(tokenizer: PreTrainedTokenizerFast, stories: int) -> torch.Tensor:
    """Windows without overlap over evaluation stories, `(windows, CONTEXT)`."""
    stream = token_stream(tokenizer, split_stories("evaluation", stories))
    return stream[: len(stream) // CONTEXT * CONTEXT].view(-1, CONTEXT)


@torch.inference_mode()
def model_loss(model: PreTrainedModel, windows: torch.Tensor) -> float:
    """Nats per token over all windows."""
    losses = [next_token_loss(model, part).item() * len(part) for part in windows.split(16)]
    return sum(losses) / len(windows)


def unigram_loss(stream: torch.Tensor, windows: torch.Tensor, vocabulary: int) -> float:
    """Nats per token of counting tokens, on the tokens that `model_loss` predicts."""
    counts = torch.bincount(stream, minlength=vocabulary).double() + 1
    return -(counts / counts.sum()).log()[windows[:, 1:]].mean().item()


def bigram_loss(stream: torch.Tensor, windows: torch.Tensor, vocabulary: int, *, k: float = 0.01) -> float:
    """Nats per token of counting pairs, add-k smoothed, on the tokens that `model_loss` predicts."""
    pairs = torch.bincount(stream[:-1] * vocabulary + stream[1:], minlength=vocabulary**2)
    counts = pairs.view(vocabulary, vocabulary).double() + k
    log_probability = (counts / counts.sum(1, keepdim=True)).log()
    return -log_probability[windows[:, :-1], windows[:, 1:]].mean().item()


def sample(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    """The greedy continuation of a prompt, up to the end of the story."""
    inputs = tokenizer(END + prompt, return_tensors="pt")
    output = model.generate(
        input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, do_sample=False, max_new_tokens=120
    )
    return tokenizer.decode(output[0], skip_special_tokens=True)


def measure(folder: Path, stories: Sequence[str]) -> dict[str, object]:
    """What a saved model reaches, and what counting alone reaches, on the same held-out text."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    stream, windows = token_stream(tokenizer, stories), held_out_windows(tokenizer, EVALUATION_STORIES)
    return {
        "model": folder.name,
        "parameters": model.num_parameters(),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "held_out_tokens": windows[:, 1:].numel(),
        "loss": model_loss(model, windows),
        "bigram_loss": bigram_loss(stream, windows, len(tokenizer)),
        "unigram_loss": unigram_loss(stream, windows, len(tokenizer)),
        "samples": [sample(model, tokenizer, prompt) for prompt in PROMPTS],
    }


def print_report(rows: Sequence[dict[str, object]]) -> None:
    """A table, the samples, and JSON on the last line."""
    columns = ("model", "parameters", "bytes", "held_out_tokens", "loss", "bigram_loss", "unigram_loss")
    print("".join(f"{column:>16}" for column in columns))
    for row in rows:
        print("".join(f"{row[column]:>16.4f}" if "loss" in column else f"{row[column]:>16}" for column in columns))
    for row in rows:
        print(*(f"{row['model']}: {text}" for text in row["samples"]), sep="\n")
    print(json.dumps(rows))


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure the models in --out, train nothing")
    parser.add_argument("--models", nargs="+", choices=FAMILIES, default=FAMILIES, help="which to train or measure")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models' folders")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches")
    parser.add_argument("--stories", type=int, default=40_000, help="training stories")
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens per step")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak of the cosine schedule")
    return parser.parse_args(argv)


def train(arguments: argparse.Namespace) -> None:
    """Train the tokenizer and the models and write them."""
    torch.set_num_threads(1)  # the order of additions, and so every weight, would follow the number of cores
    stories = list(split_stories("train", arguments.stories))
    tokenizer = train_tokenizer(stories)
    stream = token_stream(tokenizer, stories)
    for family in arguments.models:
        started = time.perf_counter()
        model = train_model(config_of(family, tokenizer), stream, arguments)
        save(model, tokenizer, arguments.out / family)
        print(f"{family} trained in {time.perf_counter() - started:.0f} s", flush=True)


def main() -> None:
    """Train unless told to check, then measure what lies in the folder."""
    arguments = parse_arguments()
    if not arguments.check:
        train(arguments)
    stories = list(split_stories("train", arguments.stories))
    print_report([measure(arguments.out / family, stories) for family in arguments.models])


if __name__ == "__main__":
    main()
