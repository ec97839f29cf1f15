"""Heals a cut model: trains its weights, or adapters of them, on text or on the dense model's predictions.

Knows how a healing is set up and taken down; the steps are `training_loop`'s. Dropout stays off: healing is far
shorter than an epoch of pretraining, and a run must repeat bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from sentinel.errors import DataInvalid, SpecInvalid
from sentinel.heal_spec import Heal
from sentinel.models.dropout import without_dropout
from sentinel.models.families import family_of
from sentinel.pruning.fine_tuning.compilation import compiling
from sentinel.pruning.fine_tuning.low_rank import Adapters
from sentinel.pruning.fine_tuning.objectives import objective_of
from sentinel.pruning.fine_tuning.observer import Keeper, Observer
from sentinel.pruning.fine_tuning.recomputation import recomputed
from sentinel.pruning.fine_tuning.rms_norms import quick_rms_norms
from sentinel.pruning.fine_tuning.rotations import quick_rotations
from sentinel.pruning.fine_tuning.task import Task
from sentinel.pruning.fine_tuning.training_loop import TrainingLoop
from sentinel.pruning.fine_tuning.training_state import ADAPTERS_FILE, read_tensors, write_tensors
from sentinel.utils.device import runs_in


def sequences_per_step(heal: Heal, sequence_length: int) -> int:
    """Windows that make up the token budget of one optimiser step, at least one."""
    return max(1, heal.batch_tokens // sequence_length)


def steps_per_cycle(heal: Heal, windows: Tensor) -> int:
    """Optimiser steps that `heal` asks for on these (windows, sequence_length) tokens."""
    if heal.epochs is None:
        return heal.steps
    return max(1, round(heal.epochs * len(windows) / _batch_windows(heal, windows)))


def _batch_windows(heal: Heal, windows: Tensor) -> int:
    return min(len(windows), sequences_per_step(heal, windows.shape[1]))


@dataclass(frozen=True, kw_only=True)
class Healed:
    """How a healing went.

    Attributes:
        steps: Steps taken, those left out included.
        left_out: Steps that nothing was learnt from.
        put_back: How often the weights of an earlier step were put back.
        best_step: The step whose weights the model has; the last one where nothing was measured.
        held_out_loss: Nats per token at that step; None where nothing was measured.
    """

    steps: int
    left_out: int
    put_back: int
    best_step: int
    held_out_loss: float | None


@dataclass(frozen=True, kw_only=True)
class FineTuner:
    """Heals one model after the other.

    Attributes:
        heal: The `heal` section of the spec.
        dense: The dense model, for `loss: distill`; not used for cross-entropy.
        accelerator: Of a program that several processes run at once (`accelerate launch`): they share every batch and
            end with the same weights, those of one process with the same batch but for rounding.
    """

    heal: Heal
    dense: PreTrainedModel
    accelerator: Accelerator | None = None

    def fine_tune(
        self,
        model: PreTrainedModel,
        windows: Tensor,
        *,
        seed: int,
        held_out: Tensor | None = None,
        factors: Mapping[nn.Parameter, Tensor] | None = None,
        factor_warmup: int = 0,
        observer: Observer | None = None,
        keeper: Keeper | None = None,
        resume: Path | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> Healed:
        """Train `model` in place.

        Args:
            model: The cut model; its parameters need no gradient before and after.
            windows: Training tokens, int64 (windows, sequence_length), on the model's device.
            seed: Seeds the order of the windows and the first weights of adapters.
            held_out: The same, other windows: where there are some and `heal.evaluate_every` says how often, they are
                measured, and the model ends with the weights of the best measurement.
            factors: Per parameter how much faster its numbers learn than the rest, in a shape that broadcasts to it;
                with adapters, how much faster their slices for it do.
            factor_warmup: Steps in which these rise linearly from 1.
            observer: Hears of every step.
            keeper: Is offered the state where healing could go on from.
            resume: Folder into which a keeper had it written, of the same healing; `model` is as it was kept.
            until: Asked before the first step and behind every one whether that was enough; the last is measured.

        Raises:
            SpecInvalid: All weights are to be learnt, and they are of float16; or, on a CPU, of one 16-bit type and to
                be multiplied in the other; or the accelerator has a precision of its own.
            TrainingDiverged: What was not finite, or jumped, could not be got over; the weights are of no use.
            OutOfMemory: As many windows as must be at a time do not fit.
            CompilationFailed: The forward pass is to be compiled, and torch could not.
            DataInvalid: There are fewer windows in a batch than processes to share it.
            CheckpointInvalid: The kept state is damaged.
        """
        self._check_weights(model)
        batch_windows = _batch_windows(self.heal, windows)
        self._check_processes(batch_windows)
        with self._learning(model, seed=seed, resume=resume) as (parameters, adapters):
            loop = TrainingLoop(
                Task(
                    model=model,
                    parameters=parameters,
                    objective=objective_of(self.heal, self.dense),
                    windows=windows,
                    held_out=held_out if self.heal.evaluate_every else None,
                    batch_windows=batch_windows,
                    steps=steps_per_cycle(self.heal, windows),
                    seed=seed,
                    factors=adapters.factors(factors or {}) if adapters else factors or {},
                    factor_warmup=factor_warmup,
                ),
                self.heal,
                accelerator=self.accelerator,
                observer=observer or Observer(),
                keeper=_AdaptersKeeper(keeper, adapters) if keeper and adapters else keeper,
                resume=resume,
                until=until,
            )
            loop.run()
        best = loop.best
        return Healed(
            steps=loop.step,
            left_out=loop.judge.left_out,
            put_back=loop.judge.put_back,
            best_step=best.step if best else loop.step,
            held_out_loss=best.loss if best else None,
        )

    def _check_weights(self, model: PreTrainedModel) -> None:
        if self.heal.method == "full" and model.dtype == torch.float16:
            raise SpecInvalid(
                "The model's weights are float16, in which AdamW's second moments vanish: `method: full` cannot learn "
                "them. Load the model in bfloat16 or float32, or use `method: lora`, whose adapters are float32."
            )
        multiplied_in = runs_in(self.heal.precision, model.device)
        if model.device.type == "cpu" and multiplied_in not in {None, model.dtype} and model.dtype != torch.float32:
            raise SpecInvalid(
                f"On a CPU torch cannot normalise {_name(multiplied_in)} with weights of {_name(model.dtype)}: leave "
                "`heal.precision` at `auto`, or set it to the type of the weights."
            )

    def _check_processes(self, batch_windows: int) -> None:
        if self.accelerator and self.accelerator.mixed_precision != "no":
            raise SpecInvalid(
                f"The accelerator has mixed_precision {self.accelerator.mixed_precision!r}, which would stay with the "
                "model after healing: make it with 'no', and say what matrices are multiplied in as `heal.precision`."
            )
        processes = self.accelerator.num_processes if self.accelerator else 1
        if batch_windows < processes:
            raise DataInvalid(
                f"{batch_windows} window(s) per batch cannot be shared by {processes} processes: raise batch_tokens."
            )

    @contextmanager
    def _learning(
        self, model: PreTrainedModel, *, seed: int, resume: Path | None
    ) -> Iterator[tuple[Mapping[str, nn.Parameter], Adapters | None]]:
        """The parameters that are learnt, by name, and the adapters that they are of; afterwards all is frozen."""
        family = family_of(model.config.model_type)
        with ExitStack() as stack:
            stack.enter_context(without_dropout(model, self.dense))
            stack.callback(_freeze, model)
            if self.accelerator:
                stack.callback(self.accelerator.free_memory)  # or it would hold on to every model it has seen
            adapters = None
            if self.heal.method == "lora":
                adapters = Adapters(model, family, self.heal.lora, seed=seed)
                stack.callback(adapters.remove)
                if resume:
                    adapters.load(read_tensors(resume / ADAPTERS_FILE))
            else:
                model.requires_grad_(True)  # noqa: FBT003 - torch's own signature
            if self.heal.compile:  # a compiler goes its own way back
                stack.enter_context(compiling(model))
            else:
                stack.enter_context(quick_rms_norms(model))
                stack.enter_context(quick_rotations(model))
            if self.heal.gradient_checkpointing:
                stack.enter_context(recomputed(family.layers(model)))
            yield {name: p for name, p in model.named_parameters() if p.requires_grad}, adapters
            if adapters:
                adapters.merge()


@dataclass(frozen=True)
class _AdaptersKeeper:
    """Keeps the model without its adapters, and those beside it."""

    keeper: Keeper
    adapters: Adapters

    def due(self) -> bool:
        return self.keeper.due()

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        def write_all(folder: Path) -> None:
            write_tensors(folder / ADAPTERS_FILE, self.adapters.parameters())
            write(folder)

        with self.adapters.set_aside():
            self.keeper.keep(step, write_all)


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")


def _freeze(model: PreTrainedModel) -> None:
    model.zero_grad(set_to_none=True)
    model.requires_grad_(requires_grad=False)
