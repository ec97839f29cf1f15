"""Lists that are read page by page: cursors are opaque to clients, and nothing but the last id seen."""

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol, TypeVar

from api.refusals import CursorInvalid


class _Row(Protocol):
    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=_Row)


def cut(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], str | None]:
    """The first `limit` of rows of which one more was asked for, and the cursor of the next page, None on the last."""
    shown = rows[:limit]
    return shown, _cursor_behind(shown[-1].id) if len(rows) > limit else None


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
    if not last_id.startswith(prefix) or not last_id.isprintable():
        raise CursorInvalid("The cursor names no place in the list.")
    return last_id


def _cursor_behind(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")
