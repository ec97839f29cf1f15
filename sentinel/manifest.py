"""`sentinel.json`: what a run was given, did and found, in one file beside the checkpoint, so that it can be repeated.

Knows files, digests and versions; no model. Names files, but never says where on a machine they lay.
"""

import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from sentinel.data_spec import DataSource, HubData, PathData
from sentinel.locating import NOTHING, locate
from sentinel.paths import BUILTIN_MODELS, own_name
from sentinel.result import Result
from sentinel.spec import BuiltinModel, HubModel, ModelSource, PathModel, Spec

Unit = Literal["attention", "mlp"]

MANIFEST_FILE = "sentinel.json"
# What of a model's folder decides what is loaded from it.
_MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model"})
# Of the result: a place on this machine, and what `kept` says shorter.
_LEFT_OUT: dict[str, Any] = {"checkpoint": True, "removed": True, "cycles": {"__all__": {"removed"}}}
_PACKAGES = {"sentinel": "sentinel-pruning", "torch": "torch", "transformers": "transformers", "numpy": "numpy"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was run and what came of it.

    Attributes:
        spec: What was asked for.
        result: What was found out.
        kept: Per unit and layer, the dense model's groups that are left, rising.
        dense_counts: Per unit and layer, how many there were.
    """

    spec: Spec
    result: Result
    kept: Mapping[Unit, Sequence[Sequence[int]]]
    dense_counts: Mapping[Unit, Sequence[int]]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Value):
    """What the run computed on; sums of floating-point numbers depend on it."""

    device: str
    threads: int
    platform: str


class Sources(_Value):
    """Where the model and the text came from.

    Attributes:
        commit: The model's on the hub, if it came from there.
        text_commit: The dataset's on the hub, if it came from there.
        domain_commits: The same of the domains that came from there.
        model: sha256 by file name.
        text: sha256 by use (`train`, `evaluation`; of a domain `NAME/train`, …), where text came from local files.
        tasks: sha256 by name of the task files.
    """

    commit: str | None
    text_commit: str | None
    domain_commits: dict[str, str] = {}
    model: dict[str, str]
    text: dict[str, str]
    tasks: dict[str, str]


class Tokens(_Value):
    """Token windows of one use: their shape, and the sha256 of them as little-endian 64-bit integers."""

    shape: list[int]
    sha256: str


class Manifest(_Value):
    """Everything needed to repeat a run, and to see whether the repetition had the same inputs and outputs.

    Attributes:
        spec: All fields, defaults included; of local files and folders the names only.
        versions: Of the packages that compute, and of Python.
        machine: What it computed on.
        sources: What the model and the text were made from.
        tokens: What the text became: `calibration`, `training`, `evaluation`; of a domain `NAME/training`, ….
        kept: Unit → per layer, the dense model's groups that are left, as `ranges` writes them.
        dense_counts: Unit → per layer, how many there were.
        result: What `result.json` says, without the checkpoint's place and the removed groups.
        files: sha256 of the checkpoint's other files, by their path in it.
    """

    spec: dict[str, Any]
    versions: dict[str, str]
    machine: Machine
    sources: Sources
    tokens: dict[str, Tokens]
    kept: dict[Unit, list[str]]
    dense_counts: dict[Unit, list[int]]
    result: dict[str, Any]
    files: dict[str, str]


def read_sources(spec: Spec, fetched: Mapping[str, Path] = NOTHING) -> Sources:
    """Digest what a run reads, as soon as it is there.

    Args:
        spec: Names datasets of the hub by their commits.
        fetched: As of `locate`.
    """
    model, data = locate(spec, fetched)
    domains = {f"{name}/": text for name, text in spec.evaluate.domains.items()}
    folder = model_folder(model)
    files = (file for file in folder.iterdir() if file.suffix in _MODEL_SUFFIXES)
    return Sources(
        commit=folder.name if isinstance(model, HubModel) else None,
        text_commit=data.revision if isinstance(data, HubData) else None,
        domain_commits={
            name: text.revision for name, text in spec.evaluate.domains.items() if isinstance(text, HubData)
        },
        model=_digests(folder, files),
        text={use: _sha256(Path(file).expanduser()) for use, file in _files({"": data, **domains}).items()},
        tasks={Path(file).name: _sha256(Path(file).expanduser()) for file in spec.evaluate.task_files},
    )


def _files(texts: Mapping[str, DataSource]) -> dict[str, str]:
    """Use → file, of texts that are files; a use is a text's key with `train` or `evaluation` behind it."""
    return {
        f"{prefix}{use}": file
        for prefix, text in texts.items()
        if isinstance(text, PathData)
        for use, file in (("train", text.train), ("evaluation", text.evaluation))
        if file
    }


def write_manifest(
    checkpoint: Path, run: Run, *, sources: Sources, windows: Mapping[str, NDArray[np.int64]], device: str
) -> None:
    """Write it into the checkpoint's folder, after everything else.

    Args:
        checkpoint: The folder.
        run: What the manifest is about.
        sources: What it read.
        windows: Use → token windows (windows, sequence_length).
        device: Name of the torch device.
    """
    others = (file for file in checkpoint.rglob("*") if file.name != MANIFEST_FILE)
    manifest = Manifest(
        spec=_without_folders(run.spec),
        versions=_versions(run.result),
        machine=_machine(device),
        sources=sources,
        tokens={use: _tokens(array) for use, array in windows.items()},
        kept={unit: [ranges(groups) for groups in layers] for unit, layers in run.kept.items()},
        dense_counts={unit: list(counts) for unit, counts in run.dense_counts.items()},
        result=run.result.model_dump(mode="json", exclude=_LEFT_OUT),
        files=_digests(checkpoint, others),
    )
    (checkpoint / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def ranges(groups: Sequence[int]) -> str:
    """Rising numbers with every run of neighbours as first and last: `0-2, 5, 7-9`."""
    starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1] + 1]
    runs = [(groups[a], groups[b - 1]) for a, b in zip(starts, [*starts, len(groups)][1:], strict=True)]
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def numbers(text: str) -> list[int]:
    """What `ranges` has written."""
    runs = [[int(end) for end in part.split("-")] for part in text.split(", ") if part]
    return [number for run in runs for number in range(run[0], run[-1] + 1)]


def _versions(result: Result) -> dict[str, str]:
    packages = {**_PACKAGES, **({"lm_eval": "lm_eval"} if result.tasks else {})}
    return {name: version(package) for name, package in packages.items()} | {"python": platform.python_version()}


def _without_folders(spec: Spec) -> dict[str, Any]:
    document = spec.model_dump(mode="json")
    domains = (document["evaluate"]["stress"] or {}).get("domains", {})
    for section in (document["model"], document["data"], *domains.values()):
        for key in ("path", "train", "evaluation"):
            if section["source"] == "path" and section.get(key):
                section[key] = own_name(section[key])
    document["evaluate"]["task_files"] = [Path(file).name for file in spec.evaluate.task_files]
    return document


def _machine(device: str) -> Machine:
    import torch  # what reads a manifest needs none

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device} ({platform.machine()})"
    return Machine(device=name, threads=torch.get_num_threads(), platform=platform.system())


def model_folder(model: ModelSource) -> Path:
    """Where a model that has been loaded lies."""
    if isinstance(model, PathModel):
        return Path(model.path).expanduser()
    if isinstance(model, BuiltinModel):
        return BUILTIN_MODELS / model.id
    from huggingface_hub import try_to_load_from_cache  # what reads a manifest needs none

    # The folder of the commit that was loaded; it is in the cache since, less what no model is loaded from.
    config = try_to_load_from_cache(model.id, "config.json", revision=model.revision)
    assert isinstance(config, str)  # noqa: S101 - without it nothing was loaded
    return Path(config).parent


def _digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in sorted(files) if file.is_file()}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tokens(windows: NDArray[np.int64]) -> Tokens:
    return Tokens(shape=list(windows.shape), sha256=hashlib.sha256(windows.astype("<i8").tobytes()).hexdigest())
