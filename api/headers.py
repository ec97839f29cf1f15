"""What every answer tells browsers, unless it says something else itself. Knows no route.

Nothing of this service is to be guessed at, framed, embedded elsewhere or kept in a cache. Whether it is reached by
HTTPS only (HSTS) is for whoever ends TLS to say.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.datastructures import MutableHeaders

EVERY_ANSWER: Mapping[str, str] = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
)


def complete(headers: MutableHeaders) -> None:
    """Add what an answer does not say itself."""
    for name, value in EVERY_ANSWER.items():
        headers.setdefault(name, value)


def described(headers: Mapping[str, str]) -> dict[str, Any]:
    """Name → description, as OpenAPI documents the headers of a response."""
    return {name: {"description": said, "schema": {"type": "string"}} for name, said in headers.items()}
