"""Windows of earlier runs, so that no text is tokenized twice.

A file's name is a digest of everything its windows were made from: the text itself, the tokenizer, how they were packed
and by which versions. So it is found only by who has the same text. Knows a folder of safetensors files, which any
number of processes may share.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from sentinel.data.loaders.splits import Packing, Windows

logger = logging.getLogger(__name__)

# Of all files together; those that were not used for longest go first.
LARGEST_BYTES = 4 * 1024**3
# Goes up whenever the same text becomes other windows.
_FORMAT = 3
_PACKAGES = ("datasets", "tokenizers", "transformers")


def cache_folder() -> Path:
    """Where this user keeps tokens: `SENTINEL_CACHE`, or else `sentinel` in the user's cache folder."""
    own = os.environ.get("SENTINEL_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{shared}/sentinel").expanduser() / "tokens"


def cache_key(content: str, tokenizer: PreTrainedTokenizerBase, packing: Packing) -> str:
    """The name of what a text with this digest becomes."""
    parts = {
        "format": _FORMAT,
        "versions": {package: version(package) for package in _PACKAGES},
        "content": content,
        "tokenizer": _serialized(tokenizer),
        "packing": asdict(packing),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class TokenCache:
    """Files of windows in one folder.

    Attributes:
        folder: Made when there is something to keep.
        largest_bytes: What they may take together.
    """

    folder: Path
    largest_bytes: int = LARGEST_BYTES

    def windows(self, key: str, pack: Callable[[], Windows]) -> Windows:
        """What is kept under `key`; if there is nothing sound, what `pack` makes, which is kept."""
        file = self.folder / f"{key}.safetensors"
        found = _read(file)
        if found is None:
            found = pack()
            self._keep(file, found)
        return found

    def _keep(self, file: Path, windows: Windows) -> None:
        """A run that cannot keep its windows goes on without."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Named like the others, so that what a killed process left is dropped like them.
            unfinished = file.with_stem(uuid4().hex)
            _write(unfinished, windows)
            unfinished.replace(file)
            self._drop_unused()
        except (OSError, SafetensorError) as error:
            logger.warning("the tokens of this text are not kept in %s: %s", self.folder, error)

    def _drop_unused(self) -> None:
        found = [(file.stat(), file) for file in self.folder.glob("*.safetensors")]
        total = 0
        for status, file in sorted(found, key=lambda entry: entry[0].st_mtime, reverse=True):
            total += status.st_size
            if total > self.largest_bytes:
                file.unlink(missing_ok=True)


def _write(file: Path, windows: Windows) -> None:
    # No vocabulary needs more than 32 bits.
    tensors = {use: tokens.to(torch.int32) for use, tokens in windows.tensors().items()}
    left_out = str(windows.left_out)
    save_file(tensors, file, metadata={"left_out": left_out, "sha256": _digest(tensors, left_out)})


def _read(file: Path) -> Windows | None:
    """What was written; None where there is no file, or a damaged one."""
    try:
        windows = _load(file)
    except FileNotFoundError:  # safetensors' word for one that may not be opened, too
        return None
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        logger.warning("the kept tokens in %s are damaged and are made anew: %s", file, error)
        return None
    with suppress(OSError):  # somebody else's file, or just dropped
        os.utime(file)
    return windows


def _load(file: Path) -> Windows:
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        tensors = {use: opened.get_tensor(use) for use in opened.keys()}  # noqa: SIM118 - it is no mapping
    if metadata["sha256"] != _digest(tensors, metadata["left_out"]):
        raise ValueError("its content has changed")
    return Windows(**{use: tokens.long() for use, tokens in tensors.items()}, left_out=int(metadata["left_out"]))


def _digest(tensors: Mapping[str, torch.Tensor], left_out: str) -> str:
    digest = hashlib.sha256(left_out.encode())
    for use, tokens in sorted(tensors.items()):
        digest.update(f"{use} {list(tokens.shape)}".encode())
        digest.update(tokens.numpy().tobytes())
    return digest.hexdigest()


def _serialized(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of all files that the tokenizer writes when it is saved."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                digest.update(f"{file.name} {file.stat().st_size}".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()
