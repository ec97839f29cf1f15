"""Run in a fresh process: load every checkpoint with plain transformers, save what it computes and logs."""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

warnings.simplefilter("error")


class Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def reload(folder: Path, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    ours = "auto_map" in json.loads((folder / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=ours)
    assert AutoTokenizer.from_pretrained(folder, trust_remote_code=ours).pad_token_id is not None
    mask = torch.ones_like(tokens)
    results = {"logits": model(tokens).logits}
    for name, options in {
        "dynamic": {},
        "no_cache": {"use_cache": False},
        "static": {"cache_implementation": "static"},
    }.items():
        results[name] = model.generate(
            tokens, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0, **options
        )
    return {name: value.detach().contiguous() for name, value in results.items()}


def main() -> None:
    root = Path(sys.argv[1])
    tokens = load_file(root / "tokens.safetensors")["tokens"]
    for folder in sorted(root.glob("*/checkpoint")):
        collected = Collect()
        logging.getLogger("transformers").addHandler(collected)
        save_file(reload(folder, tokens), folder.parent / "reloaded.safetensors")
        logging.getLogger("transformers").removeHandler(collected)
        (folder.parent / "log.json").write_text(json.dumps(collected.messages))


if __name__ == "__main__":
    main()
