"""Turns the spec's `device` into a torch device."""

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
