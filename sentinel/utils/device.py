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


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which matrices are multiplied in `precision`.

    Args:
        precision: `bfloat16`; `float32` leaves everything in the types of the weights; `auto` is bfloat16 on a GPU that
            has it.
        device: Where the arithmetic happens.
    """
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    wanted = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
