"""What this host has to run experiments on: its NVIDIA GPUs, or else itself.

Asks the driver (NVML), never CUDA: a process that has touched CUDA holds memory on the device. Knows no jobs.
"""

import logging
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil
import pynvml

from sentinel.errors import SentinelError

logger = logging.getLogger(__name__)

# Without it PyTorch holds up to half as much again as it uses, which nobody can foresee or use.
_ALLOCATOR = {"PYTORCH_ALLOC_CONF": os.environ.get("PYTORCH_ALLOC_CONF", "expandable_segments:True")}
# Where the kernel tells a container what it may have and has (control groups, version 2).
CGROUP = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """Of a device, in bytes; `free` is what nobody uses."""

    total: int
    free: int


class Device(Protocol):
    """Something that experiments run on."""

    name: str
    serves: tuple[str, ...]
    """The values of a spec's `device` that it can run."""
    environment: Mapping[str, str]
    """What a process must find in its environment to use this device and no other."""
    forks: bool
    """Whether a process that runs on it may be forked from one that has imported everything."""

    def memory(self) -> Memory:
        """As it is now."""


class Host:
    """The processor and its memory."""

    def __init__(self) -> None:
        self.name = platform.processor() or platform.machine()
        self.serves: tuple[str, ...] = ("auto", "cpu", "mps") if sys.platform == "darwin" else ("auto", "cpu")
        self.environment: Mapping[str, str] = {}
        self.forks = sys.platform == "linux"

    def memory(self) -> Memory:
        """The host's, or the container's where that is less."""
        host = psutil.virtual_memory()
        limit = _cgroup_bytes("memory.max")
        if limit is None or limit >= host.total:
            return Memory(host.total, host.available)
        used = (_cgroup_bytes("memory.current") or 0) - _cached_bytes()
        return Memory(limit, max(0, min(host.available, limit - used)))


def _cgroup_bytes(name: str) -> int | None:
    """A number of this process's control group; None where there is none or no limit."""
    try:
        text = (CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _cached_bytes() -> int:
    """What the control group uses for files that it has read or written: the kernel gives it to whoever needs it."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    numbers = dict(line.split() for line in lines)
    return sum(int(numbers.get(name, 0)) for name in ("active_file", "inactive_file"))


class Gpu:
    """One NVIDIA GPU, or one partition of it, by its UUID."""

    serves: tuple[str, ...] = ("auto", "cuda")
    forks = False  # if an import has asked CUDA for anything, no fork can use it

    def __init__(self, uuid: str) -> None:
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self.name = str(pynvml.nvmlDeviceGetName(self._handle))
        self.environment: Mapping[str, str] = {"CUDA_VISIBLE_DEVICES": uuid, **_ALLOCATOR}

    def memory(self) -> Memory:
        """As the driver tells it, whoever uses the device; nothing of one that does not answer any more."""
        try:
            found = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        except pynvml.NVMLError as error:
            logger.error("the GPU %s does not answer: %s", self.name, error)  # noqa: TRY400 - the driver's text says it all
            return Memory(0, 0)
        return Memory(int(found.total), int(found.free))


class DriverUnavailable(SentinelError):
    """NVIDIA's library is here, and its driver does not answer."""

    code = "driver_unavailable"
    next_step = "Mend the driver (does nvidia-smi answer?), or set CUDA_VISIBLE_DEVICES= to run jobs on the processor."


def discover() -> Sequence[Device]:
    """Every GPU that this process may see; the host if there is none.

    Raises:
        DriverUnavailable: There should be GPUs, and nobody can tell which.
    """
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is not None and asked.strip()[:1] in ("", "-", ","):  # none at all
        return [Host()]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return [Host()]
    except pynvml.NVMLError as error:
        raise DriverUnavailable(f"The NVIDIA driver does not answer: {error}.") from error
    every = [
        str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(pynvml.nvmlDeviceGetCount())
    ]
    return [Gpu(uuid) for uuid in visible(every, asked)] or [Host()]


def visible(uuids: Sequence[str], asked: str | None) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` leaves of the devices: all without it, else those it names by index or UUID.

    As for CUDA itself, the first index that there is not ends the list.
    """
    if asked is None:
        return list(uuids)
    left: list[str] = []
    for name in (part.strip() for part in asked.split(",")):
        if name.removeprefix("-").isdecimal():
            if not 0 <= int(name) < len(uuids):
                break
            left.append(uuids[int(name)])
        elif name:
            left.append(name)
    return left
