"""The gradient of one batch, added up over micro-batches that fit in memory and over the processes that share it."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from transformers import PreTrainedModel

from sentinel.errors import OutOfMemory
from sentinel.heal_spec import Heal
from sentinel.pruning.fine_tuning.task import Task
from sentinel.pruning.stability.float32 import in_float32
from sentinel.pruning.stability.levels import Stability
from sentinel.utils.device import autocast, runs_in


def is_short_of_memory(error: Exception) -> bool:
    """Whether this is what torch or Python raise where something does not fit."""
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


class Gradients:
    """Computes gradients into the task's parameters.

    Args:
        task: Its objective, windows and parameters.
        heal: Precision, clipping, and what to do about trouble.
        forward: The model as it is called: compiled, shared, or itself.
        optimizer: Holds the parameters; clears their gradients.
        accelerator: Shares every batch among its processes; None where there is one.
        micro_windows: Windows per forward pass.
        notice: Hears of what was out of the ordinary.

    Attributes:
        micro_windows: As it is by now.
        scaler: Scales the loss in float16, else does nothing.
    """

    def __init__(
        self,
        task: Task,
        heal: Heal,
        *,
        forward: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator | None,
        micro_windows: int,
        notice: Callable[[str], None],
    ) -> None:
        self._task, self._heal, self._forward, self._optimizer = task, heal, forward, optimizer
        self._accelerator, self._notice = accelerator, notice
        self._stability = Stability(heal.stability_level)
        self._device = task.windows.device
        self.micro_windows = micro_windows
        in_float16 = runs_in(heal.precision, self._device) == torch.float16
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=in_float16)

    def of(self, rows: Tensor) -> tuple[float, float]:
        """Mean loss of the windows of these numbers and the norm of its gradient, before it was clipped.

        Raises:
            OutOfMemory: As many windows as must be do not fit.
        """
        loss, norm = self._that_fits(rows, self._heal.precision)
        while self.scaler.is_enabled() and loss.isfinite() and not norm.isfinite() and self.scaler.get_scale() > 1:
            self._clear()
            self.scaler.update()  # halves the scale that was too large
            loss, norm = self._that_fits(rows, self._heal.precision)
        if self._stability.repeats_in_float32 and self._is_in_less() and not (loss + norm).isfinite():
            loss, norm = self._in_float32(rows)
        return loss.item(), norm.item()

    def _in_float32(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self._clear()
        self.scaler.update(self.scaler.get_scale())  # it unscales once per update; its scale is not to blame
        with in_float32(list(self._task.model.parameters())):
            loss, norm = self._that_fits(rows, "float32")
        if (loss + norm).isfinite():
            self._notice("A step was not finite and was repeated in float32.")
        return loss, norm

    def _is_in_less(self) -> bool:
        return runs_in(self._heal.precision, self._device) is not None or self._task.model.dtype != torch.float32

    def _that_fits(self, rows: Tensor, precision: str) -> tuple[Tensor, Tensor]:
        while True:
            try:
                return self._add_up(rows, precision)
            except (RuntimeError, MemoryError) as error:
                if not is_short_of_memory(error):
                    raise
                self._halve(error)

    def _halve(self, error: Exception) -> None:
        """Of the micro-batch; the batch, and with it the gradient, stays as it is."""
        self._clear()
        # Processes that share a batch must take as many turns as each other.
        if not self._stability.halves or self._accelerator or self.micro_windows == 1:
            raise OutOfMemory(
                f"Healing ran out of memory at {self.micro_windows} window(s) at a time: {error}"
            ) from error
        self.micro_windows = -(-self.micro_windows // 2)
        self._notice(f"A step did not fit in memory; from now on {self.micro_windows} window(s) at a time.")

    def _add_up(self, rows: Tensor, precision: str) -> tuple[Tensor, Tensor]:
        processes = self._accelerator.num_processes if self._accelerator else 1
        mine = rows[self._accelerator.process_index :: processes] if self._accelerator else rows
        micros = mine.split(self.micro_windows)
        total = torch.zeros((), device=self._device)
        for micro in micros:
            # Gradients travel between processes with the last micro-batch only.
            stays = self._accelerator is not None and micro is not micros[-1]
            with self._accelerator.no_sync(self._forward) if stays and self._accelerator else nullcontext():
                with autocast(precision, self._device):
                    loss = self._task.objective(self._forward, self._task.tokens(micro), micro) * (
                        len(micro) / len(rows)
                    )
                # Processes average their gradients, each of which is of its share of the batch's sum.
                self.scaler.scale(loss * processes).backward()
            total += loss.detach()
        self.scaler.unscale_(self._optimizer)
        largest = self._heal.gradient_clipping if self._stability.clips else torch.inf
        norm = torch.nn.utils.clip_grad_norm_(self._task.parameters.values(), largest)
        return (self._accelerator.reduce(total, "sum") if self._accelerator else total), norm

    def _clear(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
