"""Safetensors files that no library would write."""

import json
from collections.abc import Mapping
from pathlib import Path


def write_safetensors(file: Path, header: Mapping[str, object] | str, *, data: bytes = b"") -> None:
    """A file with a header, as a document or as its text, and whatever is to follow."""
    text = header if isinstance(header, str) else json.dumps(header)
    file.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data)
