"""Turns what a spec says of devices and precision into what torch takes."""

import torch

from sentinel.errors import SpecInvalid


def resolve_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one, else the CPU.

    Raises:
        SpecInvalid: The spec names a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise SpecInvalid(f"This machine has no device {name!r}. Use `device: auto` or `cpu`.")
    return device


def runs_in(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that matrices are multiplied in; None for that of the weights.

    Args:
        precision: `bfloat16` or `float16`; `float32` leaves everything in the types of the weights; `auto` is bfloat16
            on a GPU that has it.
        device: Where the arithmetic happens.
    """
    if precision == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else None
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which matrices are multiplied in what `runs_in` says."""
    dtype = runs_in(precision, device)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
