"""Which local paths a spec may name. Torch-free, so the API can ask before it accepts a job."""

from collections.abc import Sequence
from pathlib import Path

from sentinel.errors import PathNotAllowed


def check_roots(path: str | Path, roots: Sequence[Path] | None) -> Path:
    """The path with every symlink resolved, if it lies under one of the roots; None allows any path.

    Says nothing about whether the path exists, so a caller learns nothing of what lies elsewhere.

    Raises:
        PathNotAllowed: It lies under none of them.
    """
    try:
        resolved = Path(path).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # `~nobody`, or a NUL byte
        raise PathNotAllowed(f"{str(path)!r} is not a path: {error}.") from error
    if roots is not None and not any(resolved.is_relative_to(root.expanduser().resolve()) for root in roots):
        raise PathNotAllowed(f"The path {str(path)!r} is outside the folders that this service may read.")
    return resolved
