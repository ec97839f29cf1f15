"""The steps of one healing: gradient, judgement, update; measuring and keeping in between.

Knows no folder layout and no events. What may go wrong at a step is judged by `stability`; what is done about it, here.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor
from transformers import PreTrainedModel

from sentinel.errors import LossNotFinite, OutOfMemory, TrainingDiverged
from sentinel.heal_spec import Heal
from sentinel.models.evaluation import mean_loss
from sentinel.pruning.fine_tuning import training_state as saved
from sentinel.pruning.fine_tuning.batches import Batches
from sentinel.pruning.fine_tuning.best import Best
from sentinel.pruning.fine_tuning.gradients import Gradients, is_short_of_memory
from sentinel.pruning.fine_tuning.observer import Keeper, Observer
from sentinel.pruning.fine_tuning.optimization import faster, optimizer_of, scheduler_of, set_rates
from sentinel.pruning.fine_tuning.task import Task
from sentinel.pruning.stability import inspection
from sentinel.pruning.stability.judge import Judge, Verdict
from sentinel.pruning.stability.levels import Stability
from sentinel.pruning.stability.snapshot import Snapshot
from sentinel.utils.device import autocast

# What is left of the learning rate when the weights were put back.
BACK_OFF = 0.5


class TrainingLoop:
    """One healing's moving parts.

    Args:
        task: What is learnt.
        heal: How.
        accelerator: Shares every batch among its processes; None where there is one.
        observer: Hears of every step.
        keeper: Is offered the state every `heal.save_every` steps; None keeps none.
        resume: Folder into which a keeper had the state written; the weights are put back already.
        until: Asked behind every step whether that was enough.

    Attributes:
        step: Steps done.
        judge: Knows what was left out.
        best: The best weights, where held-out windows are measured.
    """

    def __init__(
        self,
        task: Task,
        heal: Heal,
        *,
        accelerator: Accelerator | None,
        observer: Observer,
        keeper: Keeper | None,
        resume: Path | None,
        until: Callable[[], bool],
    ) -> None:
        self._until = until
        self._task, self._heal, self._observer, self._keeper = task, heal, observer, keeper
        self._is_main = accelerator is None or accelerator.is_main_process
        self._stability = Stability(heal.stability_level)
        parameters = list(task.parameters.values())
        self._optimizer = optimizer_of(heal, parameters)
        self._scheduler = scheduler_of(heal, self._optimizer, task.steps)
        state = saved.read_state(resume) if resume else saved.TrainingState(micro_windows=_micro_windows(heal, task))
        self.step = state.step
        self._batches = Batches(len(task.windows), task.batch_windows, seed=task.seed, position=state.position)
        self._gradients = Gradients(
            task,
            heal,
            forward=_forward(task, heal, accelerator),
            optimizer=self._optimizer,
            accelerator=accelerator,
            micro_windows=state.micro_windows,
            notice=lambda text: observer.noticed(f"Step {self.step + 1} of {task.steps}: {text}"),
        )
        self.judge = Judge(self._stability, losses=state.losses, left_out=state.left_out, put_back=state.put_back)
        self._snapshot = Snapshot(parameters) if self._stability.puts_back else None
        self.best = self._best(state)
        if resume:
            self._restore(resume, state)

    def _best(self, state: saved.TrainingState) -> Best | None:
        if self._task.held_out is None:
            return None
        most = self._heal.micro_batch_tokens
        measure = partial(mean_loss, self._task.model, self._task.held_out, most=most)
        snapshot = Snapshot(self._task.parameters.values())
        return Best(snapshot, measure, loss=state.best, step=state.best_step, waited=state.waited)

    def run(self) -> None:
        """Take every step that is left; ends with the best weights, where they are measured.

        Raises:
            TrainingDiverged: Numbers that are not finite, or a jump of the loss, could not be got over.
            OutOfMemory: As many windows as must be do not fit.
        """
        while self.step < self._task.steps and not self._is_out_of_patience() and not self._until():
            self._take_step()
            if self.best and self._is_due():
                self._measure(self.best, is_last=self.step == self._task.steps)
        if self.best:
            if not self._is_due():
                self._measure(self.best, is_last=True)
            self.best.snapshot.restore()

    def _take_step(self) -> None:
        state = None if self.step % self._heal.save_every else self._state()
        rows = next(self._batches)
        loss, norm = self._gradients.of(rows)
        verdict, trouble = self.judge.judge(loss, norm)
        self.step += 1
        if verdict is Verdict.LEARN:
            if state and state.step:
                self._keep(state)
            with faster(self._task.factors, share=self._task.factor_share(self.step)):
                self._gradients.scaler.step(self._optimizer)
            self._scheduler.step()
            self._observer.stepped(self.step, loss)
        else:
            self._get_over(verdict, trouble, rows)
        self._gradients.scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _get_over(self, verdict: Verdict, trouble: str, rows: Tensor) -> None:
        told = f"Step {self.step} of {self._task.steps}: {trouble}"
        if verdict is Verdict.GIVE_UP or self._stability.inspects:
            with autocast(self._heal.precision, self._task.windows.device):  # in others it may be finite
                told += f"; {inspection.describe(self._task.model, self._task.tokens(rows[:1]))}"
        if verdict is Verdict.GIVE_UP:
            left_out, put_back = self.judge.left_out, self.judge.put_back
            raise TrainingDiverged(
                f"{told}. {left_out} step(s) had been left out, the weights put back {put_back} times."
            )
        if verdict is Verdict.LEAVE_OUT:
            self._observer.noticed(f"{told}. The step was left out.")
            return
        assert self._snapshot is not None  # noqa: S101 - made wherever weights are put back; tells the type checker
        self._snapshot.restore()
        self._optimizer.state.clear()
        self._scheduler.base_lrs = [rate * BACK_OFF for rate in self._scheduler.base_lrs]
        set_rates(self._optimizer, self._scheduler)
        self._observer.noticed(f"{told}. So had the step before: the last good weights are back, at half the rate.")

    def _is_due(self) -> bool:
        return self.step % (self._heal.evaluate_every or 1) == 0

    def _measure(self, best: Best, *, is_last: bool) -> None:
        try:
            loss = best.measure(self.step)
        except LossNotFinite as error:
            self._get_over_measurement(best, error, is_last=is_last or self._is_out_of_patience())
        except (RuntimeError, MemoryError) as error:
            if not is_short_of_memory(error):
                raise
            raise OutOfMemory(f"Measuring the held-out windows ran out of memory: {error}") from error
        else:
            self._observer.measured(self.step, loss)

    def _get_over_measurement(self, best: Best, error: LossNotFinite, *, is_last: bool) -> None:
        """Leave it to the next step, or to better weights, where there is either."""
        told = f"Step {self.step} of {self._task.steps}: on the held-out windows the loss is not finite"
        if not self._stability.leaves_out or (is_last and best.loss is None):
            assert self._task.held_out is not None  # noqa: S101 - they were measured; tells the type checker
            told += f"; {inspection.describe(self._task.model, self._task.held_out[:1])}"
            raise TrainingDiverged(f"{told}.") from error
        self._observer.noticed(f"{told}. It counts as no better one.")

    def _is_out_of_patience(self) -> bool:
        return self.best is not None and self._heal.patience is not None and self.best.waited >= self._heal.patience

    def _keep(self, state: saved.TrainingState) -> None:
        """Remember the weights to go back to and, if it is time, everything: of the step before.

        Only now it is known that they were good, as a batch has been tried on them; they have not moved since.
        """
        if self._stability.inspects and (names := inspection.broken_parameters(self._task.model)):
            raise TrainingDiverged(f"Step {state.step} of {self._task.steps}: {names[0]} is not finite.")
        if self._snapshot:
            self._snapshot.take()
        if self._keeper and self._is_main and self._keeper.due():
            self._keeper.keep(state.step, partial(self._write, state))

    def _write(self, state: saved.TrainingState, folder: Path) -> None:
        """Everything but the weights that are learnt."""
        names = self._names
        saved.write_tensors(folder / saved.OPTIMIZER_FILE, saved.optimizer_tensors(self._optimizer, names))
        saved.write_tensors(folder / saved.RANDOM_FILE, saved.random_tensors())
        if self.best:
            best = dict(zip(self._task.parameters, self.best.snapshot.copies, strict=True))
            saved.write_tensors(folder / saved.BEST_FILE, best)
        saved.write_state(folder, state)

    def _state(self) -> saved.TrainingState:
        return saved.TrainingState(
            step=self.step,
            position=self._batches.position,
            micro_windows=self._gradients.micro_windows,
            scheduler=self._scheduler.state_dict(),
            scaler=self._gradients.scaler.state_dict(),
            losses=list(self.judge.losses),
            left_out=self.judge.left_out,
            put_back=self.judge.put_back,
            best=self.best.loss if self.best else None,
            best_step=self.best.step if self.best else 0,
            waited=self.best.waited if self.best else 0,
        )

    def _restore(self, folder: Path, state: saved.TrainingState) -> None:
        saved.restore_optimizer(self._optimizer, self._names, saved.read_tensors(folder / saved.OPTIMIZER_FILE))
        self._scheduler.load_state_dict(state.scheduler)
        set_rates(self._optimizer, self._scheduler)
        self._gradients.scaler.load_state_dict(state.scaler)
        saved.restore_random(saved.read_tensors(folder / saved.RANDOM_FILE))
        if self.best and self.best.loss is not None:
            tensors = saved.read_tensors(folder / saved.BEST_FILE)
            for name, copy in zip(self._task.parameters, self.best.snapshot.copies, strict=True):
                copy.copy_(tensors[name])

    @property
    def _names(self) -> dict[Tensor, str]:
        return {parameter: name for name, parameter in self._task.parameters.items()}


def _micro_windows(heal: Heal, task: Task) -> int:
    return max(1, min(task.batch_windows, heal.micro_batch_tokens // task.windows.shape[1]))


def _forward(task: Task, heal: Heal, accelerator: Accelerator | None) -> PreTrainedModel:
    """The model as the objective calls it."""
    forward = torch.compile(task.model) if heal.compile else task.model
    return _shared(forward, task, accelerator) if accelerator else forward


def _shared(forward: PreTrainedModel, task: Task, accelerator: Accelerator) -> PreTrainedModel:
    """What is left of an attention without heads is not computed with; processes that were not told wait for it."""
    is_emptied = any(not parameter.numel() for parameter in task.parameters.values())
    own = accelerator.ddp_handler
    if is_emptied:
        accelerator.ddp_handler = replace(own or DistributedDataParallelKwargs(), find_unused_parameters=True)
    try:
        return accelerator.prepare(forward)
    finally:
        accelerator.ddp_handler = own
