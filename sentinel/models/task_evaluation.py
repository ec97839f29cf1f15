"""Scores models on tasks of lm_eval (https://github.com/EleutherAI/lm-evaluation-harness), an optional extra.

Imports it only where tasks are asked for, and lets nothing of it reach the rest of a run: it prints, draws bars, seeds
every generator, and would start processes to bootstrap. Knows nothing of pruning.
"""

import copy
import logging
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sentinel.data.budget import FORWARD_TOKENS
from sentinel.errors import Fault, FieldError, HubUnreachable, SentinelError, SpecInvalid
from sentinel.paths import check_task_files
from sentinel.spec import Evaluate

# What lm_eval seeds with by itself.
_SEED = 1234
# Resamplings for the standard error of what is no mean; lm_eval's own 100,000 take minutes.
_BOOTSTRAPS = 1000
_MULTIPROCESSING_OFF = "DISABLE_MULTIPROC"  # the variable that lm_eval reads


class LmEvalMissing(SentinelError):
    """The spec asks for tasks, and this installation has no lm_eval."""

    code = "lm_eval_missing"
    fault = Fault.USER
    next_step = "Install it where the run happens, pip install 'sentinel-pruning[lm-eval]', or name no tasks."


class TaskInvalid(SentinelError):
    """A task cannot be loaded, or fails on this model."""

    code = "task_invalid"
    fault = Fault.USER
    next_step = "Try the task with lm_eval's own command, or leave it out of `evaluate`."


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one task, of one model.

    Attributes:
        value: None if it is not a finite number.
        stderr: Standard error of `value`; None where lm_eval knows none.
        documents: How many it was measured on.
        higher_is_better: None if the task does not say.
    """

    value: float | None
    stderr: float | None
    documents: int
    higher_is_better: bool | None


# (task or group, metric) → score; a metric behind a filter is `metric,filter`, as lm_eval writes it.
Scores = Mapping[tuple[str, str], Score]


class Tasks:
    """Loaded tasks, with their documents; none of them scores nothing."""

    def __init__(self, loaded: Mapping[str, Any], *, limit: int | None) -> None:
        self._loaded = loaded
        self._limit = limit

    def scores(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Scores:
        """Every metric of every task; the same model gets the same scores each time.

        Raises:
            TaskInvalid: A task fails on this model.
        """
        if not self._loaded:
            return {}
        with _contained(model.device), _explained("A task failed"):
            return _scores(self._evaluate(model, tokenizer))

    def _evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any]:
        # Not `simple_evaluate`, which also describes the machine, and starts processes to find out.
        from lm_eval import evaluate

        for task in self._loaded["tasks"].values():
            task.set_config("num_fewshot", task.get_config("num_fewshot") or 0)
            task.set_fewshot_seed(_SEED)
        found: Mapping[str, Any] = evaluate(
            _wrapped(model, tokenizer),
            self._loaded,
            limit=self._limit,
            bootstrap_iters=_BOOTSTRAPS,
            log_samples=False,
        )
        return found


def load_tasks(evaluate: Evaluate, *, device: torch.device, allowed_roots: Sequence[Path] | None) -> Tasks:
    """Find the tasks that a spec names, and load their documents.

    Args:
        evaluate: The section that names them.
        device: Of the run, whose generators stay as they are.
        allowed_roots: As `check_task_files` takes them.

    Raises:
        LmEvalMissing: The extra is not installed.
        PathNotAllowed: As `check_task_files` says.
        SpecInvalid: A task is unknown.
        TaskInvalid: A task cannot be loaded.
        HubUnreachable: Its documents cannot be fetched.
    """
    if not evaluate.tasks and not evaluate.task_files:
        return Tasks({}, limit=None)
    check_task_files(evaluate.task_files, allowed_roots)
    if find_spec("lm_eval") is None:
        raise LmEvalMissing("The spec names tasks of lm_eval, which is not installed here.")
    with _contained(device):
        return Tasks(_load(evaluate), limit=evaluate.task_limit)


def _load(evaluate: Evaluate) -> Mapping[str, Any]:
    from lm_eval.tasks import TaskManager

    # To know the names it reads some twelve thousand files.
    manager = TaskManager(include_defaults=bool(evaluate.tasks))
    _check_names(evaluate.tasks, manager.all_tasks)
    files = [Path(file).expanduser() for file in evaluate.task_files]
    if missing := [file.name for file in files if not file.is_file()]:
        raise TaskInvalid(f"There is no task file {', '.join(missing)}.")
    with _explained("The tasks cannot be loaded"):
        loaded: Mapping[str, Any] = manager.load([*evaluate.tasks, *map(str, files)])
        if unsafe := [name for name, task in loaded["tasks"].items() if getattr(task, "UNSAFE_CODE", False)]:
            raise TaskInvalid(f"{', '.join(unsafe)} would run code that the model writes.")
    return loaded


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    errors = [
        FieldError(pointer=f"/evaluate/tasks/{index}", code="unknown_task", message=_unknown(name, known))
        for index, name in enumerate(names)
        if name not in known
    ]
    if errors:
        raise SpecInvalid(" ".join(error.message for error in errors), errors=errors)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known)
    return f"lm_eval has no task {name!r}." + (f" Did you mean {', '.join(near)}?" if near else "")


def _wrapped(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:  # noqa: ANN401 - lm_eval is untyped
    """The model as lm_eval wants it; a forward pass reads as many tokens as everywhere else."""
    from lm_eval.models.huggingface import HFLM

    class Bounded(HFLM):
        """Chooses batches by their tokens, where lm_eval would try what fits the memory."""

        def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
            longest = sum(map(len, requests[pos][1:])) if requests else self.max_length
            return max(1, FORWARD_TOKENS // longest)

    # It would tell of a model that it did not load itself, and give the tokenizer a token to pad with.
    with _speaking_from(logging.ERROR):
        return Bounded(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),
            batch_size="auto",
            max_length=min(FORWARD_TOKENS, getattr(model.config, "max_position_embeddings", FORWARD_TOKENS)),
        )


def _scores(found: Mapping[str, Any]) -> Scores:
    return {
        (task, key.removesuffix(",none")): Score(
            value=_finite(value),
            stderr=_finite(metrics.get(key.replace(",", "_stderr,", 1))),
            documents=metrics.get("sample_len", 0),
            higher_is_better=found["higher_is_better"].get(task, {}).get(key.partition(",")[0]),
        )
        for task, metrics in found["results"].items()
        for key, value in metrics.items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float)
    }


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """A task's code, its templates and its documents can fail in any way."""
    try:
        yield
    except (SentinelError, MemoryError, torch.OutOfMemoryError):
        raise
    except ConnectionError as error:
        raise HubUnreachable(f"{what}: {error}") from error
    except Exception as error:
        raise TaskInvalid(f"{what}: {type(error).__name__}: {error}") from error


@contextmanager
def _contained(device: torch.device) -> Iterator[None]:
    """Seeds of its own, no output, no processes; afterwards everything is as it was."""
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        random.seed(_SEED)
        np.random.seed(_SEED)
        torch.manual_seed(_SEED)
        sink = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(sink))
        stack.enter_context(redirect_stderr(sink))
        stack.enter_context(_speaking_from(logging.WARNING))
        stack.enter_context(_variable(_MULTIPROCESSING_OFF, "1"))
        yield


@contextmanager
def _speaking_from(level: int) -> Iterator[None]:
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
