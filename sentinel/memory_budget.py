"""What a run will need of its device's memory, told before anything is loaded, and what it has taken."""

from pathlib import Path

from sentinel.events import NeedsEstimated, Reporter
from sentinel.model_limits import ModelLimits, check_limits
from sentinel.model_shape import read_shape
from sentinel.needs import DoesNotFit, Needs, estimate
from sentinel.result import Memory
from sentinel.spec import Spec
from sentinel.utils.device import resolve_device
from sentinel.utils.memory import PeakMemory


class MemoryBudget:
    """One run's.

    Args:
        spec: What is run.
        reporter: Hears of the estimate.
        limits: How large the model may be; None does not ask.
        memory_bytes: What there is on the run's device; None does not ask.
    """

    def __init__(self, spec: Spec, reporter: Reporter, *, limits: ModelLimits | None, memory_bytes: int | None) -> None:
        self._spec = spec
        self._reporter = reporter
        self._limits = limits
        self._memory_bytes = memory_bytes
        self._peak = PeakMemory(resolve_device(spec.device))
        self._needs: Needs | None = None

    def admit(self, folder: Path) -> None:
        """Refuse a model that is too large, or that needs more than there is; tell what the run will need."""
        shape = read_shape(folder) if self._limits is None else check_limits(folder, self._limits)
        self._needs = needs = estimate(self._spec, shape)
        self._reporter.emit(NeedsEstimated(parameters=needs.parameters, memory_bytes=needs.memory_bytes))
        if self._memory_bytes is not None and needs.memory_bytes > self._memory_bytes:
            raise DoesNotFit(needs, self._memory_bytes)

    def taken(self) -> Memory:
        """The estimate and the peak so far."""
        assert self._needs is not None  # noqa: S101 - no model was loaded without it
        return Memory(estimated_bytes=self._needs.memory_bytes, peak_bytes=self._peak.bytes())
