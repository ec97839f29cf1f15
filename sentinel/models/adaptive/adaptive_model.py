"""A model whose gates can be set, kept and learnt. What closes them and why is decided elsewhere.

The model itself is never changed: gates act only between `attach` and `detach`, and open ones change no bit of what it
computes. A model that is cut needs a new `AdaptiveModel`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from sentinel.errors import CheckpointInvalid
from sentinel.models.adaptive.gates import Gates
from sentinel.models.adaptive.hard_concrete import OPEN, draw, log_alpha_of, open_probability, settled, shifted
from sentinel.models.families.base import Family, Site, Unit

GateKind = Literal["hard", "soft", "learnable"]
TENSORS_FILE, KIND_FILE = "gates.safetensors", "gates.json"
# Uniform draws keep this far from 0 and 1, where a logit is infinite.
MARGIN = 1e-6


class AdaptiveModel:
    """Gates on every group of some units of a model; they start open.

    Attributes:
        model: The model, unchanged.
        family: Where its groups live.
        kind: `hard` gates are 0 or 1, `soft` ones anything between, both fixed until set; `learnable` ones follow the
            hard concrete distribution (see `hard_concrete`).
        sites: The gated sites, those with groups left, in the order in which the model computes them.
        log_alphas: One (num_groups,) float32 tensor per site, what is learnt; empty unless `learnable`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        family: Family,
        *,
        units: Iterable[Unit] = ("attention",),
        kind: GateKind = "soft",
    ) -> None:
        self.model, self.family, self.kind = model, family, kind
        self._gates = Gates([site for site in family.sites(model, units) if site.num_groups])
        self.sites: tuple[Site, ...] = self._gates.sites
        self.log_alphas = [
            torch.full_like(values, OPEN, dtype=torch.float32, requires_grad=True)
            for values in (self._gates.values if kind == "learnable" else ())
        ]
        self._refresh: RemovableHandle | None = None
        self._generator: torch.Generator | None = None

    @property
    def attached(self) -> bool:
        """Whether the gates are in force."""
        return self._refresh is not None

    def attach(self) -> None:
        """Put the gates in force.

        Raises:
            RuntimeError: They are.
        """
        self._gates.__enter__()
        self._refresh = self.model.register_forward_pre_hook(self._before_forward, with_kwargs=True)

    def detach(self) -> None:
        """Take the gates off again; the model is as it was. Nothing happens where they are off."""
        if self._refresh is not None:
            self._refresh.remove()
            self._refresh = None
            self._gates.__exit__(None, None, None)

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    def values(self) -> list[Tensor]:
        """The gates as evaluation computes with them, (num_groups,) float32 per site; copies, on the CPU."""
        return [value.detach().float().cpu().clone() for value in self._settled()]

    def gate(self, unit: Unit, layer: int, group: int) -> float:
        """One gate, as evaluation computes with it.

        Raises:
            ValueError: There is no such gate.
        """
        return float(self._settled()[self._index(unit, layer, [group])][group].detach())

    @torch.no_grad()
    def set(self, unit: Unit, layer: int, gates: Mapping[int, float]) -> None:
        """Set gates of one layer: group → value. Of learnable gates this sets where learning goes on from.

        Raises:
            ValueError: There is no such gate, or the kind of gates cannot have the value. Nothing was set.
        """
        self.check(unit, layer, gates)
        index = self._index(unit, layer, gates)
        for group, value in gates.items():
            if self.kind == "learnable":
                self.log_alphas[index][group] = log_alpha_of(torch.tensor(float(value)))
            else:
                self._gates.values[index][group] = value

    def check(self, unit: Unit, layer: int, gates: Mapping[int, float]) -> None:
        """Refuse what `set` would refuse.

        Raises:
            ValueError: As of `set`.
        """
        self._index(unit, layer, gates)
        for group, value in gates.items():
            if not (value in (0, 1) if self.kind == "hard" else 0 <= value <= 1):
                allowed = "0 or 1" if self.kind == "hard" else "between 0 and 1"
                raise ValueError(
                    f"A {self.kind} gate is {allowed}; that of group {group} in layer {layer} came as {value}."
                )

    @contextmanager
    def sampled(self, generator: torch.Generator) -> Iterator[None]:
        """While the context lasts every forward pass draws the gates anew, for each of its samples.

        Args:
            generator: A CPU generator, so that a seed gives the same gates on every device.

        Raises:
            RuntimeError: The gates are not learnable.
        """
        self._check_learnable()
        self._generator = generator
        try:
            yield
        finally:
            self._generator = None

    def expected_open(self, unit: Unit) -> Tensor:
        """Σ P(gate ≠ 0) over the gates of a unit, the expected L0 norm; differentiable.

        Raises:
            RuntimeError: The gates are not learnable.
            ValueError: The unit has no gates.
        """
        self._check_learnable()
        if not (indices := self._of_unit(unit)):
            raise ValueError(f"There are no {unit} gates.")
        return torch.stack([open_probability(self.log_alphas[i]).sum() for i in indices]).sum()

    def learn(self, loss: Tensor, *, open_share: float, rate: float) -> None:
        """One step down the loss by the gates alone; then each unit's are open to `open_share` in the mean.

        The gradient keeps its proportions and gets a root mean square of `rate` in log α. The L0 norm is held to a
        share rather than weighed against the loss: that takes no price per model, nor a multiplier that catches up.

        Args:
            loss: Of a forward pass under `sampled`.
            open_share: Mean probability of being open, 0 to 1, as far as the bounds of log α allow.
            rate: How far log α goes.

        Raises:
            RuntimeError: The gates are not learnable.
        """
        self._check_learnable()
        gradients = torch.autograd.grad(loss, self.log_alphas)
        with torch.no_grad():
            for unit in {site.unit for site in self.sites}:
                indices = self._of_unit(unit)
                old = torch.cat([self.log_alphas[i] for i in indices])
                gradient = torch.cat([gradients[i] for i in indices])
                size = gradient.square().mean().sqrt().clamp_min(torch.finfo(gradient.dtype).tiny)
                new = shifted(old - rate * gradient / size, open_share)
                for i, values in zip(indices, new.split([self.sites[i].num_groups for i in indices]), strict=True):
                    self.log_alphas[i].copy_(values)

    def save(self, folder: Path) -> None:
        """Write the gates' state into a folder that is there: tensors as safetensors, their kind as JSON."""
        tensors = self.log_alphas if self.kind == "learnable" else self._gates.values
        save_file(
            {_name(site): tensor.detach().cpu() for site, tensor in zip(self.sites, tensors, strict=True)},
            folder / TENSORS_FILE,
        )
        (folder / KIND_FILE).write_text(json.dumps({"kind": self.kind}), encoding="utf-8")

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        """Take over a saved state, bit for bit.

        Raises:
            CheckpointInvalid: It cannot be read, is of gates of another kind, of other sites or other counts, or has
                values that those cannot have.
        """
        try:
            kind = json.loads((folder / KIND_FILE).read_text(encoding="utf-8"))["kind"]
            saved = load_file(folder / TENSORS_FILE)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointInvalid(f"Cannot read the gates in {folder.name}: {error}") from error
        tensors = self.log_alphas if self.kind == "learnable" else self._gates.values
        own = {_name(site): tensor for site, tensor in zip(self.sites, tensors, strict=True)}
        if kind != self.kind or {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in own.items()}:
            raise CheckpointInvalid(
                f"The gates in {folder.name} are {kind} ones of {len(saved)} sites, not those of this model; "
                "restore them into gates of the same kind and units, on the model that they were saved from."
            )
        if not all(self._can_be(values) for values in saved.values()):
            raise CheckpointInvalid(f"The gates in {folder.name} are damaged: {kind} ones cannot have such values.")
        for name, tensor in own.items():
            tensor.copy_(saved[name])

    def _can_be(self, values: Tensor) -> bool:
        """Whether this kind of gates is kept as such values."""
        if self.kind == "learnable":  # an optimiser may have taken them anywhere
            return bool(values.isfinite().all())
        allowed = (values == 0) | (values == 1) if self.kind == "hard" else (values >= 0) & (values <= 1)
        return bool(allowed.all())

    def _settled(self) -> list[Tensor]:
        return [settled(values) for values in self.log_alphas] if self.kind == "learnable" else self._gates.values

    def _before_forward(self, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Make the gates of a pass once, so that a layer that is computed twice in it meets the same ones."""
        if self.kind != "learnable":
            return
        for index, log_alpha in enumerate(self.log_alphas):
            gates = settled(log_alpha) if self._generator is None else self._drawn(log_alpha, arguments, keywords)
            self._gates.values[index] = gates.to(self._gates.values[index].dtype)

    def _drawn(self, log_alpha: Tensor, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        """One row of gates per sample of a pass, (samples, num_groups)."""
        # Positions, which may come first, can be one row for all samples.
        named = (keywords.get("input_ids"), keywords.get("inputs_embeds"))
        samples = next(len(value) for value in (*arguments, *named) if isinstance(value, Tensor))
        uniform = torch.rand(samples, len(log_alpha), generator=self._generator).clamp(MARGIN, 1 - MARGIN)
        return draw(log_alpha, uniform.to(log_alpha.device))

    def _of_unit(self, unit: Unit) -> list[int]:
        return [index for index, site in enumerate(self.sites) if site.unit == unit]

    def _index(self, unit: Unit, layer: int, groups: Iterable[int]) -> int:
        for index, site in enumerate(self.sites):
            if (site.unit, site.layer) == (unit, layer):
                if strangers := set(groups) - set(range(site.num_groups)):
                    raise ValueError(
                        f"Layer {layer} has {site.num_groups} {unit} gates; there is none of {sorted(strangers)}."
                    )
                return index
        raise ValueError(f"There are no {unit} gates in layer {layer}.")

    def _check_learnable(self) -> None:
        if self.kind != "learnable":
            raise RuntimeError(f'These gates are {self.kind}; only those of kind="learnable" are drawn and learnt.')


def _name(site: Site) -> str:
    return f"{site.unit}.{site.layer}"
