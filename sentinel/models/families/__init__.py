"""Where the groups of each supported architecture live; one file per family, found by `model_type`."""

from sentinel.errors import ModelUnsupported
from sentinel.models.families.base import Family
from sentinel.models.families.gpt2 import GPT2Family
from sentinel.models.families.llama import LlamaFamily

FAMILIES: tuple[Family, ...] = (GPT2Family(), LlamaFamily())


def family_of(model_type: object) -> Family:
    """The family that serves a config's `model_type`.

    Raises:
        ModelUnsupported: No family does; the message names those that exist.
    """
    for family in FAMILIES:
        if isinstance(model_type, str) and model_type in family.model_types:
            return family
    supported = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise ModelUnsupported(f"Models of type {model_type!r} are not supported; supported are {supported}.")
