"""The `grow` section of a spec: what comes back after a cycle's healing, and what it starts from. Torch-free."""

from typing import Literal

from pydantic import Field

from sentinel.prune_spec import Section

GrowthName = Literal["gradient_sensitivity", "entropy_gap", "balanced", "random"]
InitializationName = Literal["removed", "least_squares", "paired", "split", "fresh"]


class Grow(Section):
    """An exchange after every cycle's healing but the last one's: groups come in, learn, and as many go again."""

    strategy: GrowthName = Field(
        "gradient_sensitivity",
        description="`gradient_sensitivity` takes the groups whose best output slice would lower the divergence from "
        "the dense model the most; `entropy_gap` those of layers whose surviving heads have become more diffuse than "
        "they were; `balanced` evens the layers' counts; `random` is the control.",
    )
    fraction: float = Field(0.1, gt=0, lt=1, description="Share of the dense model's groups, of each unit, that grow.")
    initialization: InitializationName = Field(
        "least_squares",
        description="What a group starts from: `removed`, its weights in the dense model with an output of zero; "
        "`least_squares`, the same with its output fitted to what the model lacks; `paired`, an important group of the "
        "layer at the other end, as in a U-Net, with an output of zero; `split`, half of an important group of its "
        "layer; `fresh`, random weights with an output of zero. The last two may go beyond the dense number.",
    )
    patience: int | None = Field(
        None, ge=1, description="Exchanges in a row that are undone after which no more are tried; null tries on."
    )
    steps: int = Field(
        50,
        ge=2,
        description="Healing steps of an exchange, half with all that came, half after the cut back to the size "
        "before. It stands if it beats as many steps without it, on training text that is kept out of them.",
    )
    learning_rate_factor: float = Field(
        4.0, gt=0, le=100, description="How much faster the new groups learn than the rest before the cut back."
    )
    warmup_fraction: float = Field(
        0.2, ge=0, lt=1, description="Share of their steps in which the factor rises linearly from 1."
    )
