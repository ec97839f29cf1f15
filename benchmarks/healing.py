"""Claim: healing is as fast as a bare PyTorch loop, faster than `transformers.Trainer`, and takes as little memory.

A model of random weights learns random tokens, the same batches in the same precision with the same optimiser. The
three take turns in one process; a ratio is that of the medians of tokens per second. Memory is the peak of a process
that does nothing else (on a GPU: of the allocator). On a GPU also the model FLOP utilisation: 6 FLOPs per parameter
and token, and 12 × layers × width × sequence length for attention, over what the device can do in bfloat16.

What is trained by default depends on the device: see --device cuda --help.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from pruning_cost import MIB, peak_bytes
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from sentinel.heal_spec import Heal
from sentinel.models.evaluation import count_parameters
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.pruning.fine_tuning.observer import Observer
from sentinel.utils.device import autocast

LEARNING_RATE = 1e-4
# Dense bfloat16 FLOPs per second, from the vendor's data sheets.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
CONFIGS = {
    "260K": lambda: LlamaConfig(
        vocab_size=2048, hidden_size=64, intermediate_size=172, num_hidden_layers=5, num_attention_heads=8,
        num_key_value_heads=4,
    ),
    "3M": lambda: LlamaConfig(
        vocab_size=2048, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=3,
    ),
    "gpt2-124M": lambda: GPT2Config(**NO_DROPOUT),
    "llama-1B": lambda: LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=True,
    ),
}  # fmt: skip

# On a GPU few rounds, as whoever compiles does so in every turn.
DEFAULTS: dict[str, dict[str, object]] = {
    "cpu": {"size": "3M", "sequence_length": 256, "batch_tokens": 2048, "micro_batch_tokens": 4096, "rounds": 12},
    "cuda": {
        "size": "gpt2-124M", "sequence_length": 1024, "batch_tokens": 32_768, "micro_batch_tokens": 16_384, "rounds": 3,
    },
}  # fmt: skip

# Trains on (windows, sequence_length) tokens in order; the seconds that each optimiser step took.
Contender = Callable[[PreTrainedModel, torch.Tensor, argparse.Namespace], list[float]]


def model_of(options: argparse.Namespace) -> PreTrainedModel:
    """Random weights, frozen, as a run has them between cycles."""
    torch.manual_seed(0)
    config = CONFIGS[options.size]()
    kind = GPT2LMHeadModel if isinstance(config, GPT2Config) else LlamaForCausalLM
    with torch.device(options.device):
        return kind(config).eval().requires_grad_(requires_grad=False)


def sentinel_loop(model: PreTrainedModel, windows: torch.Tensor, options: argparse.Namespace) -> list[float]:
    """Ours."""
    heal = Heal(
        loss="cross_entropy",
        steps=options.steps,
        batch_tokens=options.batch_tokens,
        micro_batch_tokens=options.micro_batch_tokens,
        learning_rate=LEARNING_RATE,
        precision=options.precision,
        compile=options.compile,
    )
    clock = Clock()
    FineTuner(heal=heal, dense=model).fine_tune(model, windows, seed=0, observer=clock)
    return clock.steps


def bare_loop(model: PreTrainedModel, windows: torch.Tensor, options: argparse.Namespace) -> list[float]:
    """What one would write by hand."""
    model.requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    forward = torch.compile(model) if options.compile else model
    clock = Clock()
    for batch in windows.split(options.batch_tokens // options.sequence_length):
        for micro in batch.split(micro_windows(options)):
            with autocast(options.precision, model.device):
                logits = forward(input_ids=micro, use_cache=False).logits
                targets = functional.pad(micro[:, 1:], (0, 1), value=-100)
                loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            (loss * len(micro) / len(batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        clock.tick()
    model.requires_grad_(requires_grad=False)
    return clock.steps


def trainer_loop(model: PreTrainedModel, windows: torch.Tensor, options: argparse.Namespace) -> list[float]:
    """transformers.Trainer, set to do the same."""
    model.requires_grad_(requires_grad=True)
    micro = micro_windows(options)
    with autocast(options.precision, model.device):
        in_bfloat16 = torch.is_autocast_enabled(options.device)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=options.batch_tokens // options.sequence_length // micro,
            max_steps=options.steps,
            learning_rate=LEARNING_RATE,
            bf16=in_bfloat16,
            torch_compile=options.compile,
            optim="adamw_torch_fused",
            lr_scheduler_type="cosine",
            use_cpu=options.device == "cpu",
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(model=model, args=arguments, train_dataset=Windows(windows.cpu()), callbacks=[clock]).train()
    model.requires_grad_(requires_grad=False)
    return clock.steps


def micro_windows(options: argparse.Namespace) -> int:
    """Windows that go through the model at once."""
    return max(1, min(options.batch_tokens, options.micro_batch_tokens) // options.sequence_length)


class Windows(Dataset[dict[str, torch.Tensor]]):
    """Tokens as Trainer wants them."""

    def __init__(self, windows: torch.Tensor) -> None:
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._windows[index], "labels": self._windows[index]}


class Clock(TrainerCallback, Observer):
    """Seconds between one step's end and the next; the first step's are not counted, in which everything warms up."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._last: float | None = None

    def tick(self) -> None:
        """A step has ended."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._last is not None:
            self.steps.append(now - self._last)
        self._last = now

    def stepped(self, _step: int, _loss: float) -> None:
        """As FineTuner calls it."""
        self.tick()

    def on_step_end(self, *_: object, **__: object) -> None:
        """As Trainer calls it."""
        self.tick()


CONTENDERS: dict[str, Contender] = {"sentinel": sentinel_loop, "bare loop": bare_loop, "Trainer": trainer_loop}


def windows_of(options: argparse.Namespace) -> torch.Tensor:
    """Random tokens for every step, (windows, sequence_length)."""
    count = options.steps * (options.batch_tokens // options.sequence_length)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2048, (count, options.sequence_length), generator=generator).to(options.device)


def speeds(options: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of each, the contenders taking turns, each with a new model: Trainer changes what it had."""
    windows = windows_of(options)
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for round_number in range(options.rounds + 1):
        for name, train in CONTENDERS.items():
            steps = train(model_of(options), windows, options)
            if round_number > 0:
                seconds[name] += steps
    return {name: options.batch_tokens / statistics.median(steps) for name, steps in seconds.items()}


def flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """Of forward and backward pass; tied embeddings count once, where they are multiplied with."""
    config, positions = model.config, getattr(getattr(model, "transformer", None), "wpe", None)
    parameters = count_parameters(model) - (0 if positions is None else positions.weight.numel())
    return 6 * parameters + 12 * config.num_hidden_layers * config.hidden_size * sequence_length


def utilisation(options: argparse.Namespace, tokens_per_s: float) -> float | None:
    """Share of the device's peak; None where that is not known."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else ""
    peaks = [peak for part, peak in PEAK_FLOPS.items() if part in name]
    return tokens_per_s * flops_per_token(model_of(options), options.sequence_length) / peaks[0] if peaks else None


def peaks() -> Iterator[tuple[str, int]]:
    """Peak memory of each, in a fresh process."""
    for name in CONTENDERS:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        yield name, int(found.stdout.splitlines()[-1])


def parse() -> argparse.Namespace:
    """The command line."""
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", choices=list(DEFAULTS), default="cpu")
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind, parents=[device])
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    parser.add_argument("--size", choices=list(CONFIGS), help="%(default)s")
    parser.add_argument("--sequence-length", type=int, help="%(default)s")
    parser.add_argument("--batch-tokens", type=int, help="of an optimiser step; %(default)s")
    parser.add_argument("--micro-batch-tokens", type=int, help="that go through the model at once; %(default)s")
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps in a row")
    parser.add_argument("--rounds", type=int, help="turns of each, after one that warms up; %(default)s")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--compile", action="store_true", help="the forward pass of all three")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.set_defaults(**DEFAULTS[device.parse_known_args()[0].device])
    return parser.parse_args()


def main() -> None:
    """Print a table; with --json also one JSON object as the last line."""
    options = parse()
    torch.set_num_threads(options.threads)
    if options.only:
        CONTENDERS[options.only](model_of(options), windows_of(options), options)
        print(peak_bytes(options.device))
        return
    memory, tokens_per_s = dict(peaks()), speeds(options)
    mfu = {name: utilisation(options, speed) for name, speed in tokens_per_s.items()}
    table = Table("", "tokens/s", "peak MiB", "MFU", title=f"{options.size}, {options.batch_tokens} tokens a step")
    for name, speed in tokens_per_s.items():
        share = mfu[name]
        table.add_row(name, f"{speed:,.0f}", f"{memory[name] / MIB:,.0f}", "" if share is None else f"{share:.1%}")
    Console().print(table)
    if options.json:
        ours = tokens_per_s["sentinel"]
        print(
            json.dumps(
                {
                    "ratio_to_bare_loop": ours / tokens_per_s["bare loop"],
                    "ratio_to_trainer": ours / tokens_per_s["Trainer"],
                    "memory_ratio": memory["sentinel"] / memory["bare loop"],
                    "mfu": mfu["sentinel"],
                    "size": options.size,
                    "tokens_per_s": tokens_per_s,
                    "peak_bytes": memory,
                }
            )
        )


if __name__ == "__main__":
    main()
