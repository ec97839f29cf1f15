"""Loads checkpoints in a fresh process, as somebody without Sentinel does."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_SCRIPT = Path(__file__).with_name("reload_checkpoints.py")


@dataclass(frozen=True, kw_only=True)
class Reloaded:
    """What became of one checkpoint elsewhere.

    Attributes:
        computed: `logits`, and the tokens generated with each kind of cache; empty where it did not load.
        log: What transformers warned of, and why it did not load.
    """

    computed: dict[str, torch.Tensor]
    log: list[str]


def reload_elsewhere(
    root: Path, tokens: torch.Tensor, *, new_tokens: int = 12, caches: Sequence[str] = ("dynamic", "no_cache", "static")
) -> dict[str, Reloaded]:
    """Load every `*/checkpoint` under `root` on the CPU, in one process that knows nothing of Sentinel.

    Args:
        root: A folder that may be written to.
        tokens: What the models see, (batch, length).
        new_tokens: How many to generate.
        caches: With which kinds of cache: `dynamic`, `no_cache`, `static`.

    Returns:
        The name of each checkpoint's folder → what became of it.
    """
    save_file({"tokens": tokens}, root / "tokens.safetensors")
    # Started from a copy, so that nothing beside it can be imported.
    script = shutil.copy(_SCRIPT, root)
    environment = {
        **os.environ,
        "HF_HOME": str(root / "hub"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "warning",
    }
    command = [sys.executable, script, str(root), str(new_tokens), *caches]
    subprocess.run(command, check=True, cwd=root, env=environment, stderr=subprocess.DEVNULL)
    return {folder.name: _outcome(folder) for folder in (path.parent for path in root.glob("*/checkpoint"))}


def _outcome(folder: Path) -> Reloaded:
    computed = folder / "reloaded.safetensors"
    return Reloaded(
        computed=load_file(computed) if computed.exists() else {},
        log=json.loads((folder / "log.json").read_text(encoding="utf-8")),
    )
