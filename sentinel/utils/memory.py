"""The most memory that this process has taken on a device, as the device's allocator or Linux counts it."""

from contextlib import suppress
from pathlib import Path

import torch

# "5" written here lets the peak begin anew (proc_pid_clear_refs(5)).
_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Begins anew when it is made.

    On a GPU it is what tensors took, without CUDA's own; on a CPU the whole process's resident set, with the libraries
    and, in a fork, with pages that it shares. `getrusage` would not do: what it says survives an exec.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            with suppress(OSError):  # where it cannot be reset, or is not kept, it is the process's
                _RESET.write_text("5")

    def bytes(self) -> int | None:
        """Bytes at the peak; None on a CPU without Linux, and on devices that do not say."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if self._device.type != "cpu" or not _STATUS.exists():
            return None
        kib = next(line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(kib) * 1024
