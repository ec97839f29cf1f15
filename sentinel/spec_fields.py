"""Fields of a spec by their dotted path, `prune.target.sparsity`: how a value gets into a document.

Knows no flags and no grids; validation stays in `sentinel.spec`.
"""

from typing import Any

from sentinel.spec import model_section


def set_field(document: dict[str, Any], path: str, value: object) -> None:
    """Put a value into a document; sections on the way are copied, or made where there are none.

    Args:
        document: A spec that need not be whole.
        path: Names of sections and field, with dots between them.
        value: What the field is to be.
    """
    *parents, last = path.split(".")
    here = document
    for key in parents:
        section = here.get(key)
        if isinstance(section, str) and key == "model":
            section = model_section(section)
        here[key] = dict(section) if isinstance(section, dict) else {}
        here = here[key]
    here[last] = value
