"""Claim: a run takes no more memory than was estimated before its model was loaded, and not much less.

Every row is a run of its own process, of a built-in model or one of random weights; `ratio` is the estimate over the
measured peak. On a CPU a process takes some 0.6 GB before it does anything.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sentinel.paths import BUILTIN_MODELS

QUICK = {"search": None, "compensation": "least_squares", "allocation": "uniform"}
PRUNING = {"quick": QUICK, "default": {"search": {"evaluations": 4}}}
HEALING: dict[str, dict[str, Any] | None] = {
    "none": None,
    "cross_entropy": {"loss": "cross_entropy", "steps": 2},
    "distill": {"loss": "distill", "steps": 2},
}


def models(folder: Path) -> dict[str, dict[str, str]]:
    """Name → the `model` section of a spec; those of random weights are written into the folder."""
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    drawn: dict[str, PreTrainedModel] = {
        "gpt2 12M, vocabulary 2k": GPT2LMHeadModel(
            GPT2Config(vocab_size=2048, n_positions=512, n_embd=384, n_layer=6, n_head=6, **tokens)
        ),
        "llama 32M, vocabulary 32k": LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32_000, hidden_size=384, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=6,
                num_key_value_heads=2, **tokens,
            )
        ),
    }  # fmt: skip
    sections = {name: {"source": "builtin", "id": name} for name in ("gpt2", "llama")}
    for index, (name, model) in enumerate(drawn.items()):
        model.save_pretrained(folder / str(index))
        AutoTokenizer.from_pretrained(BUILTIN_MODELS / "gpt2").save_pretrained(folder / str(index))
        sections[name] = {"source": "path", "path": str(folder / str(index))}
    return sections


def run(model: dict[str, str], prune: dict[str, Any], heal: dict[str, Any] | None, *, device: str) -> dict[str, int]:
    """`memory` of the result of one run."""
    spec = {
        "model": model,
        "data": {"source": "builtin", "sequence_length": 256},
        "prune": {"units": ["attention", "mlp"], "target": {"sparsity": 0.25}, "calibration_sequences": 24, **prune},
        "heal": heal,
        "evaluate": {"tokens": 8192},
        "device": device,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spec.yaml"
        file.write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-m", "sentinel", "run", str(file), "--output", f"{folder}/run", "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    memory: dict[str, int] = json.loads(done.stdout.splitlines()[-1])["memory"]
    return memory


def main() -> None:
    """Run every model with every way to prune and to heal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pruning", nargs="+", choices=PRUNING, default=["quick"])
    options = parser.parse_args()
    table = Table("model", "pruning", "healing", "estimated, MB", "peak, MB", "ratio")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model, section in models(Path(folder)).items():
            for pruning in options.pruning:
                for healing, heal in HEALING.items():
                    memory = run(section, PRUNING[pruning], heal, device=options.device)
                    ratio = memory["estimated_bytes"] / memory["peak_bytes"]
                    rows.append({"model": model, "pruning": pruning, "healing": healing, "ratio": ratio, **memory})
                    megabytes = (f"{memory[name] / 1e6:,.0f}" for name in ("estimated_bytes", "peak_bytes"))
                    table.add_row(model, pruning, healing, *megabytes, f"{ratio:.2f}")
                    print(rows[-1], file=sys.stderr, flush=True)
    Console().print(table)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
