"""Cursors of lists that go from the newest id to the oldest: opaque to clients, and nothing but the last id seen."""

import base64
import binascii

from api.refusals import CursorInvalid


def cursor_behind(last_id: str) -> str:
    """The cursor of the page that follows an id."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def position(cursor: str | None, *, prefix: str) -> str | None:
    """The id that a page follows; None for the first page.

    Raises:
        CursorInvalid: The cursor names no id with the prefix.
    """
    if cursor is None:
        return None
    try:
        last_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise CursorInvalid("The cursor cannot be read.") from error
    if not last_id.startswith(f"{prefix}_") or not last_id.isprintable():
        raise CursorInvalid("The cursor names no place in the list.")
    return last_id
