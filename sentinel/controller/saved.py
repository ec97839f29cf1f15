"""`controller.json`: what a learned controller knows, in the folder of the checkpoint that it led to.

The file may come from anybody: it is bounded in size, and every number in it is checked.
"""

from pathlib import Path

from pydantic import ValidationError

from sentinel.controller.experience import VERSION, Experience
from sentinel.errors import ControllerStateInvalid

CONTROLLER_FILE = "controller.json"
# A hundred times as much as one takes.
MAX_BYTES = 1 << 20


def save_experience(experience: Experience, folder: Path) -> None:
    """Write it into a folder that exists."""
    (folder / CONTROLLER_FILE).write_text(experience.model_dump_json() + "\n", encoding="utf-8")


def load_experience(folder: Path) -> Experience:
    """Read it.

    Raises:
        ControllerStateInvalid: The folder has none, or it is damaged or of another version.
    """
    file = folder / CONTROLLER_FILE
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ControllerStateInvalid(
            f"The model's folder has no {CONTROLLER_FILE} that can be read: no learned controller led to it."
        ) from error
    if len(text) > MAX_BYTES:
        raise ControllerStateInvalid(f"{CONTROLLER_FILE} has more than {MAX_BYTES:,} bytes.")
    try:
        return Experience.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ControllerStateInvalid(
            f"{CONTROLLER_FILE} is not what version {VERSION} of a learned controller knows: {where}: {first['msg']}."
        ) from error
