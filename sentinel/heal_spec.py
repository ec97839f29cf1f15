"""The `heal` section of a spec: how a cut model is trained. Torch-free."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sentinel.prune_spec import Section


class LowRank(Section):
    """Adapters that are learnt in place of the weights, and added to them at the end."""

    rank: int = Field(16, ge=1, description="Inner dimension of an adapter.")
    alpha: float = Field(32, gt=0, description="An adapter's product is scaled by `alpha / rank`.")


class WarmUp(Section):
    """Training before the first cut, until the loss is stable; what comes of it is the dense model."""

    steps: int = Field(500, ge=1, description="Optimiser steps at most.")
    window: int = Field(25, ge=1, description="Steps whose mean loss is held against that of as many before them.")
    stable_below: float = Field(
        0.01, gt=0, lt=1, description="The loss is stable when it falls by less than this share from window to window."
    )


class Heal(Section):
    """Fine-tuning after every cut."""

    loss: Literal["cross_entropy", "distill"] = Field(
        "distill", description="`distill` learns the dense model's predictions, `cross_entropy` the text."
    )
    temperature: float = Field(
        1.0, gt=0, le=1_000_000, description="Of `distill`: both models' logits are divided by it."
    )
    teacher_top_k: int | None = Field(
        None,
        ge=1,
        description="Of `distill`: keep the dense model's k likeliest tokens at every position, so that it runs once "
        "over each window; the others count together. null runs it at every step and compares all tokens.",
    )
    hidden_weight: float = Field(
        0.0,
        ge=0,
        description="Of `distill`: weight of the squared distance between the two models' hidden states, behind each "
        "layer relative to the dense model's energy there in the same window, averaged over layers and windows.",
    )
    method: Literal["full", "lora"] = Field(
        "full", description="Learn all weights (not in float16), or low-rank adapters of them, in float32."
    )
    lora: LowRank = Field(default_factory=LowRank, description="Of `method: lora`.")
    steps: int = Field(200, ge=1, description="Optimiser steps per cycle.")
    epochs: float | None = Field(
        None, gt=0, le=1_000_000, description="Passes over the training text per cycle; replaces `steps`."
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the rate falls in the last cycle: to zero, or not at all. Before that it stays."
    )
    warmup_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of a cycle's steps in which the rate rises linearly from zero."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's decoupled weight decay.")
    gradient_clipping: float = Field(
        1.0, gt=0, description="Largest norm of the whole gradient, from `stability_level: 1` on."
    )
    batch_tokens: int = Field(8192, ge=8, description="Tokens per optimiser step.")
    micro_batch_tokens: int = Field(
        4096, ge=8, description="Tokens per forward pass: less takes less memory and gives the same gradient."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Of matrix products; `float32` leaves them in `model.dtype`, in which weights always stay. `auto` "
        "is bfloat16 on a GPU that has it. `float16` scales the loss.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Keep one input per layer for the backward pass and compute the rest again."
    )
    compile: bool = Field(
        default=False, description="Compile the forward pass: up to minutes at a cycle's start, less time per step."
    )
    evaluate_every: int | None = Field(
        None,
        ge=1,
        description="Steps between two measurements on windows of the training text that are kept out of healing; "
        "the weights of the best one are what healing ends with. null ends with the last step's.",
    )
    patience: int | None = Field(
        None, ge=1, description="Measurements in a row without a better one after which healing stops early."
    )
    stability_level: Literal[0, 1, 2, 3] = Field(
        2,
        description="0 stops at the first number that is not finite; 1 clips gradients and skips such steps; 2 also "
        "goes back when the loss jumps, and halves micro-batches that do not fit in memory; 3 also repeats such "
        "steps in float32 and names the layer.",
    )
    save_every: int = Field(
        25, ge=1, description="Steps between two points to which healing can go back or from which it can resume."
    )
    before: WarmUp | None = Field(
        None,
        description="Train the loaded model first, by cross-entropy, until its loss is stable: it is the dense model "
        "from then on. null for none.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.loss == "cross_entropy" and (self.teacher_top_k or self.hidden_weight):
            raise ValueError("`teacher_top_k` and `hidden_weight` need `loss: distill`.")
        if self.teacher_top_k and self.hidden_weight:
            raise ValueError("`hidden_weight` needs the dense model at every step; leave `teacher_top_k` out.")
        if self.patience and not self.evaluate_every:
            raise ValueError("`patience` counts measurements; say how often with `evaluate_every`.")
        return self

    @model_validator(mode="after")
    def _can_become_stable(self) -> Self:
        if self.before is None:
            return self
        risen = self.before.steps - self.rise(self.before.steps)
        if risen < 2 * self.before.window:
            raise ValueError(
                f"`before` compares two windows of {self.before.window} steps, and of its {self.before.steps} steps "
                f"{risen} are left once the rate has risen: raise `before.steps` or lower `before.window`."
            )
        return self

    def rise(self, steps: int) -> int:
        """Of so many steps those in which the rate rises."""
        return round(self.warmup_fraction * steps)

    def warming(self, before: WarmUp) -> Self:
        """How the warm-up trains: as healing does, but on the text alone, and without measurements in between."""
        return self.model_copy(
            update={
                "loss": "cross_entropy",
                "teacher_top_k": None,
                "hidden_weight": 0.0,
                "steps": before.steps,
                "epochs": None,
                "evaluate_every": None,
                "patience": None,
            }
        )
