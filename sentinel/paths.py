"""Where built-in models lie, and which local paths a spec may name.

And how a path is called where its folder is nobody's business. Torch-free, so the API can ask before it accepts a job.
"""

from collections.abc import Sequence
from pathlib import Path

from sentinel.errors import PathNotAllowed

BUILTIN_MODELS = Path(__file__).parent / "models" / "builtin"


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


def check_folder_roots(path: str | Path, roots: Sequence[Path] | None) -> Path:
    """As `check_roots`, of a folder, of everything in it, and in the folders in it; nothing deeper is ever read.

    Raises:
        PathNotAllowed: Something in it is a link that leads out of the roots.
    """
    folder = check_roots(path, roots)
    for file in (*folder.glob("*"), *folder.glob("*/*")):
        check_roots(file, roots)
    return folder


def check_task_files(files: Sequence[str], roots: Sequence[Path] | None) -> None:
    """Refuse task files of lm_eval, which can name any function to be run, where roots say that specs are strangers'.

    Raises:
        PathNotAllowed: There are files and roots.
    """
    if files and roots is not None:
        raise PathNotAllowed(
            "Task files can run code, so this service takes none.",
            next_step="Name tasks that ship with lm_eval in `evaluate.tasks`, or run the spec with `sentinel run`.",
        )


def own_name(path: str) -> str:
    """What a file or folder is called, also if the path is `.` or `..`, which say no name."""
    given = Path(path).expanduser()
    return (given.resolve() if given.name in {"", ".."} else given).name
