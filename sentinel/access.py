"""Where a command finds its service: options, environment, or the folder that the embedded service keeps."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from sentinel.errors import Fault, SentinelError

if TYPE_CHECKING:  # it brings httpx, which `--help` can do without
    from sentinel.client import SentinelClient

# How long a service that does not answer is asked again: by a command that only asks, and by one that stays.
QUICK_S, STAYING_S = 5.0, 60.0
DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[
    str | None,
    typer.Option(
        envvar="SENTINEL_URL",
        help="Address of the service.",
        show_default=f"that of the service in .sentinel, or {DEFAULT_URL}",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="SENTINEL_API_KEY",
        help="Key for it.",
        show_default="that of the service in .sentinel",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line, errors included.")]


class KeyMissing(SentinelError):
    """No API key was given or found."""

    code = "key_missing"
    fault = Fault.USER
    next_step = "Pass --api-key or set SENTINEL_API_KEY; `make serve` prints where it keeps one."


def find(url: str | None, api_key: str | None) -> tuple[str, str]:
    """Address and key: what is given, or else what the embedded service wrote down.

    Its key goes nowhere but to itself: to its address, or to this host, which it may be reached at by several.

    Raises:
        KeyMissing: There is no key for this address.
    """
    home = Path(os.environ.get("SENTINEL_HOME") or ".sentinel")
    own_url = _read(home / "url")
    url = (url or own_url or DEFAULT_URL).strip()
    if not api_key and (url == own_url or _is_this_host(url)):
        api_key = _read(home / "api_key")
    if not api_key:
        raise KeyMissing(f"There is no API key for {url}.")
    return url, api_key


def connect(url: str | None, api_key: str | None, *, patience_s: float | None = None) -> SentinelClient:
    """A client of the service; patient for `QUICK_S` unless said otherwise."""
    from sentinel.client import SentinelClient

    return SentinelClient(*find(url, api_key), patience_s=QUICK_S if patience_s is None else patience_s)


def _is_this_host(url: str) -> bool:
    """Whether only this host can be meant."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None
