"""Heals a cut model: AdamW on next-token prediction or on the dense model's logits.

Knows one loop. The schedule comes from transformers, the optimiser from torch. Dropout stays
off: healing is far shorter than an epoch of pretraining, and a run must repeat bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from sentinel.data.loaders.windows import token_batches
from sentinel.errors import TrainingDiverged
from sentinel.spec import Heal
from sentinel.utils.device import autocast
from sentinel.utils.metrics import kl_divergences, next_token_losses

# Called after every optimiser step with (steps done, mean loss of the step in nats per token).
StepObserver = Callable[[int, float], None]


def sequences_per_step(heal: Heal, sequence_length: int) -> int:
    """Windows that make up the token budget of one optimiser step, at least one."""
    return max(1, heal.batch_tokens // sequence_length)


def steps_per_cycle(heal: Heal, windows: torch.Tensor) -> int:
    """Optimiser steps that `heal` asks for on these (windows, sequence_length) tokens."""
    if heal.epochs is None:
        return heal.steps
    return max(1, round(heal.epochs * len(windows) / sequences_per_step(heal, windows.shape[1])))


@dataclass(frozen=True, kw_only=True)
class FineTuner:
    """One healing of one model.

    Attributes:
        heal: The `heal` section of the spec.
        dense: The dense model, for `loss: distill`; not used for cross-entropy.
    """

    heal: Heal
    dense: PreTrainedModel

    def fine_tune(self, model: PreTrainedModel, windows: torch.Tensor, *, seed: int, on_step: StepObserver) -> None:
        """Train all weights of `model` in place.

        Args:
            model: The cut model; its parameters need no gradient before and after.
            windows: Training tokens, (windows, sequence_length), on the model's device.
            seed: Seeds the order of the windows.
            on_step: Hears of every step.

        Raises:
            TrainingDiverged: A loss or gradient was not finite; the weights are those of the last good step.
        """
        steps = steps_per_cycle(self.heal, windows)
        batches = _shuffled(windows, min(len(windows), sequences_per_step(self.heal, windows.shape[1])), seed)
        model.requires_grad_(True)  # noqa: FBT003 - torch's own signature
        try:
            self._loop(model, batches, steps=steps, on_step=on_step)
        finally:
            model.zero_grad(set_to_none=True)
            model.requires_grad_(requires_grad=False)

    def _loop(
        self, model: PreTrainedModel, batches: Iterator[torch.Tensor], *, steps: int, on_step: StepObserver
    ) -> None:
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, self.heal.weight_decay),
            lr=self.heal.learning_rate,
            betas=(0.9, 0.95),
            fused=model.device.type == "cuda",
        )
        warmup = round(self.heal.warmup_fraction * steps)
        scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
        for step in range(1, steps + 1):
            loss = self._accumulate_gradients(model, next(batches))
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), self.heal.gradient_clipping)
            if not torch.isfinite(loss + norm):
                raise TrainingDiverged(
                    f"At step {step} of {steps} the healing loss was {loss.item()}, its gradient norm {norm.item()}."
                )
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            on_step(step, loss.item())

    def _accumulate_gradients(self, model: PreTrainedModel, batch: torch.Tensor) -> torch.Tensor:
        """Mean loss of the batch, after its gradient was added up over micro-batches."""
        total = torch.zeros((), device=batch.device)
        for micro in token_batches(batch):
            with autocast(self.heal.precision, batch.device):
                loss = self._loss(model, micro) * (len(micro) / len(batch))
            loss.backward()
            total += loss.detach()
        return total

    def _loss(self, model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=tokens, use_cache=False).logits
        if self.heal.loss == "cross_entropy":
            return next_token_losses(logits, tokens).mean()
        with torch.no_grad():
            dense_logits = self.dense(input_ids=tokens, use_cache=False).logits
        return kl_divergences(dense_logits, logits).mean()


def _parameter_groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices only; gains and biases have no scale to shrink."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _shuffled(windows: torch.Tensor, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches; every window once per epoch, the remainder of an epoch left out."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(windows), generator=generator).to(windows.device)
        for start in range(0, len(windows) - batch_size + 1, batch_size):
            yield windows[order[start : start + batch_size]]
