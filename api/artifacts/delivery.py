"""One file as the answer to one request: ranges, entity tags, digests.

Bytes go from the storage to the socket in chunks, or the caller is sent to the storage for them.
"""

import base64
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Header, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api.artifacts.ranges import parse_range
from api.conditional import has_tag, quoted
from api.errors import responses
from api.headers import described
from api.resources import Resources, Shared
from api.store.models import Artifact

BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
LENGTH = described({"Content-Length": "Bytes of the answer.", "Content-Disposition": "A name for the file."})
FILE = described(
    {
        "ETag": "The sha256 of the whole file, which never changes.",
        "Repr-Digest": "The same as RFC 9530 writes it.",
        "Accept-Ranges": "`bytes`",
    }
)
RANGE = described({"Content-Range": "Which bytes of how many."})
CONTENT_RESPONSES = {
    **responses(HTTPStatus.NOT_FOUND, HTTPStatus.GONE),
    HTTPStatus.OK: {**BYTES, "headers": FILE | LENGTH},
    HTTPStatus.PARTIAL_CONTENT: {
        **BYTES,
        "description": "The range that was asked for.",
        "headers": FILE | LENGTH | RANGE,
    },
    HTTPStatus.NOT_MODIFIED: {"description": "The caller has these bytes.", "headers": FILE},
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: {
        **responses(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)[HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE],
        "headers": RANGE,
    },
}
REDIRECT = {
    HTTPStatus.TEMPORARY_REDIRECT: {
        "description": "The file, or the range of it, is at the storage; ask there without the API key.",
        "headers": described({"Location": "Good for some minutes."}),
    }
}


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    """What a request asks of a file, whichever that is."""

    request: Request
    resources: Shared
    range: Annotated[str | None, Header(description="`bytes=first-last`, one range.")] = None
    if_range: Annotated[str | None, Header(description="Honour Range only if this is the ETag.")] = None
    if_none_match: Annotated[str | None, Header(description="ETags that the caller has.")] = None

    def of(self, artifact: Artifact) -> Response:
        """The file, or the part of it that was asked for, or where that is.

        Raises:
            RangeUnsatisfiable: The range has no byte of the file.
        """
        headers = _headers(artifact)
        if has_tag(self.if_none_match, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        honoured = self.if_range is None or self.if_range == headers["ETag"]
        part = parse_range(self.range, artifact.bytes) if honoured else None
        offset, length = part or (0, artifact.bytes)
        headers |= {"Content-Length": str(length), "Content-Disposition": attachment(PurePosixPath(artifact.path).name)}
        if part is not None:
            headers["Content-Range"] = part.content_range(artifact.bytes)
        status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        if self.request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=artifact.media_type)
        # The storage has entity tags of its own, so that only this service can tell whether an If-Range holds.
        elsewhere = _presigned(artifact, self.resources) if self.if_range is None else None
        if elsewhere is not None:
            return RedirectResponse(elsewhere, HTTPStatus.TEMPORARY_REDIRECT, headers={"Cache-Control": "no-store"})
        chunks = self.resources.storage.iterate(artifact.storage_key, offset=offset, length=length)
        return StreamingResponse(chunks, status_code=status, headers=headers, media_type=artifact.media_type)


Delivery = Annotated[_Delivery, Depends(_Delivery)]


def attachment(name: str) -> str:
    """Content-Disposition that cannot be broken out of, whatever the name holds (RFC 6266)."""
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def _presigned(artifact: Artifact, resources: Resources) -> str | None:
    """Where the storage itself gives the file, if it may be asked for it."""
    if not resources.settings.presigned_downloads:
        return None
    return resources.storage.presign(artifact.storage_key, valid_s=resources.settings.presigned_ttl_s)


def _headers(artifact: Artifact) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    return {
        "ETag": quoted(artifact.sha256),
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
