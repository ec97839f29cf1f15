"""The `evaluate.stress` section of a spec: what both models are put through after pruning. Torch-free.

Knows what is asked for; what each measurement means is told in docs/stress.md.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from sentinel.data_spec import BuiltinData, DataSource
from sentinel.heal_spec import Heal
from sentinel.prune_spec import ScoreName, Section

# What results call the text of the spec's own `data` section.
IN_DOMAIN = "data"
DomainName = Annotated[str, Field(pattern=r"^[\w-]+$", max_length=40)]


class Probes(Section):
    """Tokens whose right answer stands earlier in the sequence."""

    sequences: int = Field(256, ge=2, le=100_000, description="Sequences drawn per probe of random tokens.")


class Alternation(Section):
    """Training on another domain and on the own text in turn."""

    domain: DomainName | None = Field(None, description="The other one, a name in `domains`; null takes the first.")
    rounds: int = Field(2, ge=1, le=100, description="How often both come in turn.")
    steps: int = Field(20, ge=1, description="Optimiser steps on each of them per round.")


class Damage(Section):
    """Loss of the most important attention groups at once, and healing from it."""

    share: float = Field(0.25, gt=0, lt=1, description="Share of each model's own attention groups that is cut out.")
    strategy: ScoreName = Field("taylor", description="What computes which ones are the most important.")
    steps: int = Field(40, ge=1, description="Optimiser steps of the healing.")
    points: int = Field(4, ge=1, le=1000, description="How often the loss is measured on its way, evenly spread.")


def _programs() -> dict[str, DataSource]:
    return {"programs": BuiltinData(id="programs")}


class Stress(Section):
    """How well the pruned model's function survives, beside the dense model's under the same."""

    domains: dict[DomainName, DataSource] = Field(
        default_factory=_programs,
        min_length=1,
        max_length=32,
        examples=[{"programs": {"source": "builtin", "id": "programs"}}],
        description="Other texts, by a name of your choice, each a section like `data`.",
    )
    tokens: int = Field(8192, ge=8, description="Tokens of each domain's evaluation text, at most.")
    probes: Probes | None = Field(default_factory=Probes, description="Copying and recall; null for none.")
    alternation: Alternation | None = Field(
        default_factory=Alternation, description="Forgetting and recovery; null for none."
    )
    damage: Damage | None = Field(default_factory=Damage, description="Sudden damage; null for none.")
    learning_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate, after a warm-up constant.")
    batch_tokens: int = Field(2048, ge=8, description="Tokens per optimiser step.")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if IN_DOMAIN in self.domains:
            raise ValueError(f"`{IN_DOMAIN}` is the text of the spec's own `data`; give the domain another name.")
        if self.alternation and self.alternation.domain not in (None, *self.domains):
            raise ValueError(f"`alternation.domain` is none of the domains: {', '.join(self.domains)}.")
        return self

    @property
    def other_domain(self) -> str:
        """The domain that alternates with the own text."""
        named = self.alternation.domain if self.alternation else None
        return named or next(iter(self.domains))

    @property
    def alternation_tokens(self) -> int:
        """Of each of the two texts: as many as the alternation can use without seeing one twice."""
        return self.alternation.rounds * self.alternation.steps * self.batch_tokens if self.alternation else 0

    @property
    def healing_tokens(self) -> int:
        """Of the own text, in healing from damage."""
        return self.damage.steps * self.batch_tokens if self.damage else 0

    def training(self, steps: int) -> Heal:
        """How a model is trained, on its own or another text: the same for the dense and the pruned one."""
        return Heal(
            loss="cross_entropy",
            steps=steps,
            learning_rate=self.learning_rate,
            schedule="constant",
            batch_tokens=self.batch_tokens,
        )
