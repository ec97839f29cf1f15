"""Tells a full disk from whatever else went wrong: every library says it in its own way."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from sentinel.errors import DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries in Rust give the number in their text only.
_IN_TEXT = re.compile(r"\(os error (\d+)\)")


@contextmanager
def telling_full_disk() -> Iterator[None]:
    """Whatever is raised because no space was left, as one error.

    Raises:
        DiskFull: No space was left for what was to be written.
    """
    try:
        yield
    except Exception as error:  # which class it is says nothing: see above
        if shortage(error) is None:
            raise
        raise DiskFull(f"No space is left: {error}") from error


def shortage(error: BaseException | None) -> int | None:
    """ENOSPC or EDQUOT if the error, or one that it came from, tells of a full disk or a used-up quota."""
    while error is not None:
        said = _IN_TEXT.search(str(error))
        for number in (getattr(error, "errno", None), said and int(said[1])):
            if number in FULL:
                return number
        error = error.__cause__ or error.__context__
    return None
