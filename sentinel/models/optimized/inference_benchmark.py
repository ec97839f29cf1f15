"""How fast models read and write: prefill and decode, the models taking turns in one process.

A machine's busy moments then hit all of them alike, so that ratios can be trusted where milliseconds cannot.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

# Timed rounds that a median is taken of, after one that warms up.
REPEATS = 15


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians of one model.

    Attributes:
        prefill_ms: A forward pass over the whole prompt.
        prefill_tokens_per_s: Prompt tokens of all sequences over that time.
        decode_ms: One new token for every sequence, with the prompt in the cache.
        decode_tokens_per_s: New tokens of all sequences over that time.
    """

    prefill_ms: float
    prefill_tokens_per_s: float
    decode_ms: float
    decode_tokens_per_s: float


@torch.no_grad()
def measure_speed(
    models: Sequence[PreTrainedModel], prompts: torch.Tensor, *, new_tokens: int = 8, repeats: int = REPEATS
) -> list[Speed]:
    """Prefill and decode of (batch, time) prompts, per model; `new_tokens` are decoded in each round."""
    reading = interleaved_medians([prefill(model, prompts) for model in models], repeats=repeats)
    writing = interleaved_medians([_Decoding(model, prompts, new_tokens) for model in models], repeats=repeats)
    batch, tokens = len(prompts), prompts.numel()
    return [
        Speed(
            prefill_ms=read,
            prefill_tokens_per_s=1000 * tokens / read,
            decode_ms=write / new_tokens,
            decode_tokens_per_s=1000 * batch * new_tokens / write,
        )
        for read, write in zip(reading, writing, strict=True)
    ]


def forward_latency(models: Sequence[PreTrainedModel], window: torch.Tensor) -> list[float]:
    """Median milliseconds of a forward pass over one (sequence_length,) window, batch 1, per model."""
    return interleaved_medians([prefill(model, window[None]) for model in models])


def interleaved_medians(calls: Sequence[Callable[[], object]], *, repeats: int = REPEATS) -> list[float]:
    """Median milliseconds of each call; they take turns, and each is made once more before timing."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for call, seen in zip(calls, times, strict=True):
            elapsed = _timed(call)
            if repeat > 0:
                seen.append(elapsed)
    return [statistics.median(seen) for seen in times]


def prefill(model: PreTrainedModel, prompts: torch.Tensor) -> Callable[[], object]:
    """A forward pass over (batch, time) prompts without a cache, to be timed."""

    @torch.no_grad()
    def call() -> object:
        return model(input_ids=prompts, use_cache=False)

    return call


class _Decoding:
    """Writes `new_tokens` greedily after a prompt, over and over from the same cache."""

    def __init__(self, model: PreTrainedModel, prompts: torch.Tensor, new_tokens: int) -> None:
        self._model, self._new_tokens = model, new_tokens
        self._cache = DynamicCache(config=model.config)
        self._next = self._step(prompts, self._cache)

    def __call__(self) -> None:
        # Layers replace their tensors when they grow, so those of the prompt stay as they are. (`crop` refuses
        # layers whose sliding window is full.)
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        tokens = self._next
        for _ in range(self._new_tokens):
            tokens = self._step(tokens, cache)

    def _step(self, tokens: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        logits = self._model(input_ids=tokens, past_key_values=cache, use_cache=True).logits
        chosen: torch.Tensor = logits[:, -1:].argmax(-1)
        return chosen


def _timed(call: Callable[[], object]) -> float:
    _synchronize()
    start = time.perf_counter()
    call()
    _synchronize()
    return (time.perf_counter() - start) * 1000


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
