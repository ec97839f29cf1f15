"""Cursors of lists: the last id of the page before, in a form that nobody takes for one."""

import base64
import binascii

from api.refusals import CursorInvalid


def cursor_of(last_id: str) -> str:
    """What continues behind `last_id`."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def position(cursor: str, prefix: str) -> str:
    """The id that a cursor continues behind, in a list of ids like `prefix_…`.

    Raises:
        CursorInvalid: The cursor is none of that list.
    """
    try:
        last_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise CursorInvalid("The cursor cannot be read.") from error
    if not last_id.startswith(f"{prefix}_") or not last_id.isprintable():
        raise CursorInvalid("The cursor names no place in the list.")
    return last_id
