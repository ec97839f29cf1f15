"""A model whose groups can be scored, in JAX: the twin of `pruning_module` for GPT-2 and Llama.

Loads the same checkpoints and comes to the same importances as `sentinel.pruning.strategies`. Loads no torch; needs the
extra `jax`. Does not select and does not cut.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from numpy.typing import ArrayLike

from sentinel.pruning.functional import Array, checkpoint, importances, passes
from sentinel.pruning.functional.architecture import UNITS, Architecture, Params, Site, Unit
from sentinel.pruning.functional.arguments import gates_of, labels_of, windows_of
from sentinel.pruning.functional.importances import Numbers
from sentinel.pruning.functional.passes import MaskLosses

JaxStrategy = Literal["taylor", "fisher", "energy", "ablation"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PruningModule:
    """A model as values: what its config says and its weights. Everything it tells is a pure function of them.

    Attributes:
        model: The forward pass, `model.logits(params, gates, tokens)`, for whoever wants to differentiate, map or
            compile it themselves.
        params: The weights.
    """

    model: Architecture
    params: Params

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the model in a folder: of `transformers`, or our own whose layers differ.

        Raises:
            ModelNotFound, ModelUnsafe, ModelUnsupported, ModelInvalid: As `checkpoint.load` says.
        """
        model, params = checkpoint.load(folder)
        return cls(model=model, params=params)

    def sites(self, units: Collection[Unit] = UNITS) -> list[Site]:
        """The sites of the units that have groups left, in the order in which the model computes them.

        Raises:
            ValueError: There is no such unit.
        """
        if strangers := set(units) - set(UNITS):
            raise ValueError(f"There are no units {sorted(strangers)} here; there are {', '.join(UNITS)}.")
        return [site for site in self.model.sites(self.params) if site.unit in units and site.num_groups]

    def gates(self) -> Array:
        """All gates, open, (gates,); `site.gates` says which of them belong to a site."""
        return passes.open_gates(self.model, self.params)

    def logits(self, windows: ArrayLike, gates: ArrayLike | None = None) -> Array:
        """What the model makes of windows (windows, tokens) under `gates`, or open ones: (windows, tokens, vocabulary).

        Raises:
            ValueError: The windows or the gates do not fit the model.
        """
        chosen = self.gates() if gates is None else self._gates(gates, dimensions=1)
        return passes.logits(self.model, self.params, chosen, windows_of(self.model, windows))

    def losses_of_masks(self, masks: ArrayLike, windows: ArrayLike) -> MaskLosses:
        """What the model loses under each row of masks (masks, gates), all in one compiled call.

        Raises:
            ValueError: The masks or the windows do not fit the model.
        """
        rows = self._gates(masks, dimensions=2)
        return passes.losses_of_masks(self.model, self.params, rows, windows_of(self.model, windows))

    def importance(
        self,
        strategy: JaxStrategy,
        windows: ArrayLike,
        *,
        units: Collection[Unit] = UNITS,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> list[Numbers]:
        """Every group's importance, (groups,) for each of `sites(units)`.

        Args:
            strategy: Which of the definitions in `importances`.
            windows: What the groups are judged on, (windows, tokens).
            units: The kinds of groups that are judged.
            labels: For `fisher` and `energy`: tokens sampled from the model's predictions, (windows, tokens); None
                draws them.
            seed: Of the draw.

        Raises:
            ValueError: There is no such strategy or unit, or the windows or the labels do not fit the model.
        """
        given, sites = windows_of(self.model, windows), self.sites(units)
        match strategy:
            case "taylor":
                scores = importances.taylor(self.model, self.params, given)
            case "fisher":
                scores = importances.fisher(self.model, self.params, given, self._labels(given, labels, seed))
            case "energy":
                scores = importances.energy(self.model, self.params, given, self._labels(given, labels, seed))
            case "ablation":
                scores = importances.ablation(self.model, self.params, given, sites)
            case _:
                raise ValueError(
                    f"There is no strategy {strategy!r} here; there are {', '.join(get_args(JaxStrategy))}."
                )
        return [scores[site.gates] for site in sites]

    def _labels(self, windows: Array, labels: ArrayLike | None, seed: int) -> Array:
        if labels is None:
            return passes.draw_labels(self.model, self.params, windows, seed)
        return labels_of(self.model, labels, windows=windows)

    def _gates(self, gates: ArrayLike, *, dimensions: int) -> Array:
        return gates_of(gates, total=len(self.gates()), dimensions=dimensions)
