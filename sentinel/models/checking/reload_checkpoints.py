"""A script for a fresh process: load every checkpoint with plain transformers, save what it computes and logs.

Imports nothing of Sentinel. Arguments: the folder of the checkpoints, how many tokens to generate, then with which
kinds of cache.
"""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils.logging import warning_once

# As on a machine without Sentinel: importing it fails.
sys.modules["sentinel"] = None  # type: ignore[assignment]

CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "no_cache": {"use_cache": False},
    "static": {"cache_implementation": "static"},
}


class Collect(logging.Handler):
    """Keeps what transformers warns of."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.messages.append(record.getMessage())


def compute(folder: Path, tokens: torch.Tensor, new_tokens: int, caches: list[str]) -> dict[str, torch.Tensor]:
    """Logits, and tokens generated greedily with each kind of cache.

    Raises:
        ValueError: The checkpoint and its class do not have the same tensors.
    """
    # A checkpoint that Sentinel has just written; its code is Sentinel's own.
    ours = "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model, report = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=ours, output_loading_info=True)
    if any(report.values()):
        raise ValueError(f"The tensors do not fit: {report}")
    with torch.no_grad():
        results = {"logits": model(tokens).logits}
    for name in caches:
        options = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0, **CACHES[name]}
        results[name] = model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
    return {name: value.contiguous() for name, value in results.items()}


def main() -> None:
    """Write `reloaded.safetensors` and `log.json` beside every checkpoint; whatever fails is in the log."""
    root, new_tokens, *caches = sys.argv[1:]
    warnings.simplefilter("error")
    tokens = load_file(f"{root}/tokens.safetensors")["tokens"]
    for folder in sorted(Path(root).glob("*/checkpoint")):
        collected = Collect()
        logging.getLogger("transformers").addHandler(collected)
        warning_once.cache_clear()  # of one checkpoint is no less true of the next
        try:
            save_file(compute(folder, tokens, int(new_tokens), caches), folder.parent / "reloaded.safetensors")
        except Exception as error:  # the next checkpoint may do better
            collected.messages.append(f"{type(error).__name__}: {error}")
        logging.getLogger("transformers").removeHandler(collected)
        (folder.parent / "log.json").write_text(json.dumps(collected.messages), encoding="utf-8")


if __name__ == "__main__":
    main()
