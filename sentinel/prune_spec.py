"""The `prune` section of a spec: what is removed, by which score, to which target, in how many steps. Torch-free."""

from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

ScoreName = Literal[
    "random", "magnitude", "entropy", "energy", "wanda", "fluctuation", "taylor", "fisher", "obs", "ablation", "learned"
]
StrategyName = Literal[ScoreName, "combined"]
UnitName = Literal["attention", "mlp", "layer"]
AllocationName = Literal["uniform", "global", "cost"]
CompensationName = Literal["least_squares", "residual_least_squares", "reconstruction"]
TargetName = Literal["sparsity", "parameters", "flops", "kv_bytes", "latency_ms"]


class Section(BaseModel):
    """A part of a spec: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Target(Section):
    """What the pruned model must reach; exactly one of these."""

    sparsity: float | None = Field(
        None, ge=0, lt=1, description="Share of the dense model's groups to remove, of each unit."
    )
    parameters: int | None = Field(None, gt=0, description="Parameters that may be left.")
    flops: float | None = Field(None, gt=0, description="Floating-point operations per token that may be left.")
    kv_bytes: int | None = Field(None, gt=0, description="Bytes of key-value cache per token that may be left.")
    latency_ms: float | None = Field(
        None, gt=0, description="Milliseconds of a forward pass over one window, batch 1, on the device at hand."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self._given()) != 1:
            raise ValueError(f"Name exactly one of {', '.join(type(self).model_fields)}.")
        return self

    def _given(self) -> set[str]:
        return {name for name in type(self).model_fields if getattr(self, name) is not None}

    @property
    def kind(self) -> TargetName:
        """Which of them is given."""
        (name,) = self._given()
        return cast("TargetName", name)

    @property
    def value(self) -> float:
        """The number that is given."""
        return float(getattr(self, self.kind))


class Search(Section):
    """Refines a selection by what it really does: the KL divergence after the repair, measured."""

    evaluations: int = Field(100, ge=1, description="Candidates that may be cut, repaired and measured per cycle.")
    windows: int = Field(24, ge=4, description="Calibration windows that candidates are repaired and measured on.")


class Prune(Section):
    """What is removed, by which score, and in how many steps."""

    units: list[UnitName] = Field(
        ["attention"],
        min_length=1,
        max_length=3,
        description="Kinds of groups to remove. `attention`: a KV head with its query heads; `mlp`: neurons, by "
        "blocks; `layer`: the whole attention or the whole MLP of a layer.",
    )
    strategy: StrategyName = Field("obs", description="What computes the importance of a group.")
    mix: dict[ScoreName, Annotated[float, Field(gt=0)]] | None = Field(
        None, min_length=1, description="For `combined`: the strategies to mix by rank, each with its weight."
    )
    target: Target = Field(description="How much to remove.")
    allocation: AllocationName = Field(
        "global",
        description="`uniform` removes equally from every layer, `global` the least important groups for what "
        "they save, `cost` solves the knapsack over every layer's damage and saving exactly.",
    )
    cycles: int = Field(1, ge=1, le=1000, description="Prune-and-heal cycles.")
    schedule: Literal["one_shot", "linear", "cubic"] = Field("cubic", description="How sparsity rises over cycles.")
    compensation: CompensationName | None = Field(
        "reconstruction",
        description="Repair of the surviving weights after a cut; null for none. `least_squares` refits what was cut "
        "to its own output, `residual_least_squares` every later projection to the dense residual stream, "
        "`reconstruction` whole layers to the same, and the last to the dense predictions.",
    )
    search: Search | None = Field(
        default_factory=Search, description="Refine the selection by measured KL after the repair; null for none."
    )
    merge: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Before each cut, groups of a layer whose outputs have a cosine of at least this, of either sign, "
        "become one, as far as the cycle's target asks for; what goes is made up for by least squares. null for none.",
    )
    mlp_block: int = Field(8, ge=1, le=4096, description="Layers keep a multiple of this many neurons.")
    minimum_per_layer: int = Field(
        1, ge=1, description="Attention groups that every layer keeps; of neurons, this many blocks."
    )
    protected_layers: list[Annotated[int, Field(ge=0)]] = Field([], description="Layers that lose nothing.")
    max_loss_increase: float | None = Field(
        None,
        gt=0,
        description="Stop after the cycle whose held-out loss lies this many nats per token above the dense one.",
    )
    calibration_sequences: int = Field(128, ge=1, description="Windows of training text that scores are computed on.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.units)) != len(self.units):
            raise ValueError("`units` names a unit twice.")
        if (self.mix is not None) != (self.strategy == "combined"):
            raise ValueError("`mix` goes with the strategy `combined`, and `combined` needs a `mix`.")
        if "entropy" in {self.strategy, *(self.mix or ())} and self.units != ["attention"]:
            raise ValueError("`entropy` scores attention only; use another strategy for these units.")
        if self.merge is not None and self.units == ["layer"]:
            raise ValueError("`merge` joins groups of a layer; prune `attention` or `mlp`, or leave it out.")
        if "layer" in self.units and self.allocation == "uniform":
            raise ValueError("`uniform` would remove every layer or none; use `global` or `cost` with `layer`.")
        if self.target.sparsity is not None and "layer" in self.units and len(self.units) > 1:
            raise ValueError("`sparsity` cannot be shared between `layer` and other units; use another target.")
        return self
