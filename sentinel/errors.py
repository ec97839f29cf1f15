"""What can go wrong in the library, in words a user can act on.

Every error says what was wrong, whose fault it is, and what to do next. Nothing here
knows of HTTP or of the database; `api/errors.py` turns these into problem documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Fault(StrEnum):
    """Who has to act so that the same thing does not fail again."""

    USER = "user"
    RESOURCE = "resource"
    SERVICE = "service"


class SentinelError(Exception):
    """Base of every error Sentinel raises on purpose.

    Attributes:
        code: Stable machine-readable name, e.g. `model_unsupported`.
        fault: Who has to act.
        next_step: What to do now, one sentence.
        message: What was wrong, one sentence.
    """

    code: ClassVar[str] = "internal_error"
    fault: ClassVar[Fault] = Fault.SERVICE
    next_step: ClassVar[str] = "Report this with the job id and the last log lines."

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.instance_next_step = next_step or self.next_step

    def as_dict(self) -> dict[str, str]:
        """The error as plain data, for JSON."""
        return {
            "code": self.code,
            "fault": self.fault.value,
            "message": self.message,
            "next_step": self.instance_next_step,
        }


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One mistake in a document.

    Attributes:
        pointer: RFC 6901 JSON pointer to the field, e.g. `/prune/target/sparsity`.
        code: Stable machine-readable name of the mistake.
        message: What is wrong with the value.
    """

    pointer: str
    code: str
    message: str


class SpecInvalid(SentinelError):
    """The spec does not describe an experiment that can run."""

    code = "spec_invalid"
    fault = Fault.USER
    next_step = "Correct the named fields and submit again."

    def __init__(self, message: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class PathNotAllowed(SentinelError):
    """A path lies outside the folders that the operator opened."""

    code = "path_not_allowed"
    fault = Fault.USER
    next_step = "Move the files under one of the allowed roots, or ask the operator to add this one."


class SourceElsewhere(SentinelError):
    """The spec names what only a service has: an upload, or another job's checkpoint."""

    code = "source_elsewhere"
    fault = Fault.USER
    next_step = "Submit the spec to the service that has it, or name local files with `source: path`."


class ModelNotFound(SentinelError):
    """The model's files are not where the spec says."""

    code = "model_not_found"
    fault = Fault.USER
    next_step = "Check the id or the path; the folder must hold config.json and safetensors weights."


class ModelUnsafe(SentinelError):
    """The model carries something that could run code: pickles, `auto_map`, internal keys."""

    code = "model_unsafe"
    fault = Fault.USER
    next_step = "Convert the weights to safetensors and remove custom code from config.json."


class ModelInvalid(SentinelError):
    """The model's files are damaged or do not fit each other."""

    code = "model_invalid"
    fault = Fault.USER
    next_step = "Save the model again with `save_pretrained`, or download it again."


class ModelTooLarge(SentinelError):
    """The model has more of something than the operator allows."""

    code = "model_too_large"
    fault = Fault.USER
    next_step = "Use a smaller model, or ask the operator for a higher `SENTINEL_MAX_` setting."

    def __init__(self, what: str, found: int, limit: int) -> None:
        super().__init__(f"The model has {found:,} {what}; this service takes {limit:,} at most.")


class HubUnreachable(SentinelError):
    """The Hugging Face Hub, or the endpoint that stands in for it, does not answer."""

    code = "hub_unreachable"
    fault = Fault.RESOURCE
    next_step = "Check the network and `HF_ENDPOINT`, then submit again."


class ModelUnsupported(SentinelError):
    """No family in Sentinel knows where this architecture's groups live."""

    code = "model_unsupported"
    fault = Fault.USER
    next_step = "Use a model of a supported family, listed in the message."


class TokenizerInvalid(SentinelError):
    """The tokenizer cannot serve the model: no end token, or ids beyond the vocabulary."""

    code = "tokenizer_invalid"
    fault = Fault.USER
    next_step = "Use the tokenizer that the model was trained with."


class DataInvalid(SentinelError):
    """The text is missing, empty, too short, or lacks the named column."""

    code = "data_invalid"
    fault = Fault.USER
    next_step = "Check the data section of the spec against the files."


class ExportImpossible(SentinelError):
    """The requested export form cannot express the pruned model."""

    code = "export_impossible"
    fault = Fault.USER
    next_step = "Use `export.form: auto`, which picks a form that can express every pruned model."


class CheckpointInvalid(SentinelError):
    """A saved state does not belong to this spec or is damaged."""

    code = "checkpoint_invalid"
    fault = Fault.SERVICE
    next_step = "Start the run again without resuming."


class ControllerStateInvalid(SentinelError):
    """What a controller has learnt cannot be read, or was learnt by another kind or version of it."""

    code = "controller_state_invalid"
    fault = Fault.USER
    next_step = "Leave `controller.state` out to start anew, or go on from a job that had the same kind of controller."


class LossNotFinite(SentinelError):
    """A model's loss on the evaluation text is not a finite number."""

    code = "loss_not_finite"
    fault = Fault.USER
    next_step = "Run in float32, or remove less at a time: more cycles or a lower sparsity."


class TrainingDiverged(SentinelError):
    """Healing met numbers that are not finite, or a loss that jumps, and could not get over it."""

    code = "training_diverged"
    fault = Fault.USER
    next_step = "Lower `heal.learning_rate`, heal in float32, or raise `heal.stability_level`."


class OutOfMemory(SentinelError):
    """The model and its training state do not fit in memory."""

    code = "out_of_memory"
    fault = Fault.RESOURCE
    next_step = (
        "Lower `heal.micro_batch_tokens` or `data.sequence_length`, set `heal.gradient_checkpointing` or "
        "`heal.method: lora`, or use a device with more memory."
    )


class CompilationFailed(SentinelError):
    """torch cannot compile the model here."""

    code = "compilation_failed"
    fault = Fault.RESOURCE
    next_step = "Leave `heal.compile` out, or install a C++ compiler (`g++`) where experiments run."


class DiskFull(SentinelError):
    """A disk that is written to, or the storage, has no space left."""

    code = "disk_full"
    fault = Fault.RESOURCE
    next_step = "Free space on the disk that is written to and on the storage, then run it again."
