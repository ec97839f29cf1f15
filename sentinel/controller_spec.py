"""The `controller` section of a spec: who decides what a cycle does. Torch-free."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sentinel.prune_spec import Section


class Controller(Section):
    """Decides before every cycle how far it cuts, how long it heals, and whether it grows."""

    kind: Literal["rule", "learned"] = Field(
        "rule",
        description="`rule` compares what was measured with fixed thresholds; `learned` chooses by what earlier runs "
        "came to, and learns from this one.",
    )
    state: Literal["checkpoint"] | None = Field(
        None,
        description="Of `learned`: what it knows at first. `checkpoint` is the model folder's own `controller.json`, "
        "which a run with such a controller leaves; null knows nothing.",
    )
    explore: bool = Field(
        default=True,
        description="Of `learned`: also try what may yet prove better; false takes what has proved best.",
    )

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.kind == "rule" and (self.state or not self.explore):
            raise ValueError("`state` and `explore` go with `kind: learned`.")
        return self
