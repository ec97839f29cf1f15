"""Repairs a cut unit as a whole: its input and value projections too, not only its output projection.

Everything is fitted to one target, the output that brings the residual stream back to where the uncut model has it:
first the inputs are mapped back (least squares), then the output projection is refitted (least squares), then the
unit's weights are improved together by L-BFGS on the same squared error, unit by unit, behind the repaired prefix.
No labels, no gradient through the model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sentinel.models.families.base import Site
from sentinel.models.families.parts import parameter
from sentinel.pruning.calibration import Calibration, LayerwisePass
from sentinel.pruning.compensation import UncutLayer, apply_refit, lack_of, lack_of_residual
from sentinel.pruning.least_squares import SplitSums, gram, refit, rows_of
from sentinel.result import LayerCompensation

# Rounds of L-BFGS per unit and iterations of each, every one about a forward and a backward pass of the unit.
# Between rounds the error on held-out windows is looked at.
ROUNDS, ITERATIONS = 4, 5
# One calibration batch in so many is held out from the fit, if there are that many.
HELD_OUT_EVERY = 8
# Share of the mean diagonal that is added to an input's second moment before it is inverted.
WHITENING_RIDGE = 1e-3


def fit_unit(calibration: Calibration, site: Site, stream: LayerwisePass, uncut: UncutLayer) -> LayerCompensation:
    """Fit a unit that is cut already to the uncut model's residual stream."""
    sums, targets = lack_of_residual(calibration, site, stream, uncut)
    record = apply_refit(site, sums)
    if not site.num_groups:
        return record
    _map_inputs_back(calibration, site, stream, uncut)
    apply_refit(site, lack_of(site, stream, targets))
    _descend(calibration, site, stream, targets)
    after = apply_refit(site, lack_of(site, stream, targets))
    return after.model_copy(update={"error_before": record.error_before})


def _map_inputs_back(calibration: Calibration, site: Site, stream: LayerwisePass, uncut: UncutLayer) -> None:
    """W ← W(I + D), with z + D z the best linear guess at the uncut model's input from the cut one's, z."""
    modules = _input_projections(calibration, site)
    sums = SplitSums()
    wanted = uncut.inputs[site.unit]
    stream.run_to(site.layer, modules[0], lambda i, inputs: sums.add(inputs, lack=wanted[i] - inputs, target=wanted[i]))
    change = refit(sums, has_bias=all(module.bias is not None for module in modules))
    with torch.no_grad():
        for module in modules:
            weight = _weight(module)
            weight += (weight.double() @ change.weight).to(weight.dtype)
            if change.bias is not None:
                parameter(module, "bias").add_((weight.double() @ change.bias).to(weight.dtype))


def _descend(calibration: Calibration, site: Site, stream: LayerwisePass, targets: Sequence[Tensor]) -> None:
    """Lower E‖t − y‖² over the unit's weights, from where they are, as long as held-out windows agree."""
    fit = _Fit(site, stream, targets, _tuned(calibration, site, stream))
    optimizer = torch.optim.LBFGS(
        [part.direction for part in fit.tuned],
        max_iter=ITERATIONS,
        history_size=ROUNDS * ITERATIONS,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-12,
    )
    best, directions = fit.held_out_error(), fit.directions()
    with _differentiable([part.weight for part in fit.tuned]):
        for _ in range(ROUNDS):
            optimizer.step(fit.closure)
            found = fit.held_out_error()
            if not found < best:
                break
            best, directions = found, fit.directions()
    fit.write(directions)


class _Fit:
    """The squared error of one unit, as a function of the directions of its weights.

    Attributes:
        tuned: The weights.
    """

    def __init__(self, site: Site, stream: LayerwisePass, targets: Sequence[Tensor], tuned: Sequence["_Tuned"]) -> None:
        self.tuned = tuned
        self._site, self._stream, self._targets = site, stream, targets
        self._scale = sum(float(target.double().square().sum()) for target in targets)
        last = HELD_OUT_EVERY - 1
        self._held_out = [i for i in range(len(targets)) if i % HELD_OUT_EVERY == last] or list(range(len(targets)))
        self._fitted = [i for i in range(len(targets)) if i % HELD_OUT_EVERY != last]

    def closure(self) -> float:
        """The error on the fitted batches at the directions as they are, which get their gradients."""
        for part in self.tuned:
            part.write()
        total = 0.0
        weights = [part.weight for part in self.tuned]
        for number, index in enumerate(self._fitted):
            with torch.enable_grad():
                error = self._error(index)
                gradients = torch.autograd.grad(error, weights)
            total += error.item()
            for part, gradient in zip(self.tuned, gradients, strict=True):
                part.add(gradient, first=number == 0)
        return total

    @torch.no_grad()
    def held_out_error(self) -> float:
        """The error on the batches that are not fitted, at the directions as they are."""
        for part in self.tuned:
            part.write()
        return sum(float(self._error(index)) for index in self._held_out)

    def directions(self) -> list[Tensor]:
        """Copies of all directions."""
        return [part.direction.detach().clone() for part in self.tuned]

    @torch.no_grad()
    def write(self, directions: Sequence[Tensor]) -> None:
        """Put the weights of some directions into the modules."""
        for part, direction in zip(self.tuned, directions, strict=True):
            part.direction.copy_(direction)
            part.write()

    def _error(self, index: int) -> Tensor:
        inputs = self._stream.input_of(self._site.layer, self._site.output, index)
        return (self._targets[index] - self._site.output(inputs)).square().sum() / self._scale


@contextmanager
def _differentiable(weights: Sequence[Tensor]) -> Iterator[None]:
    """Let gradients reach the weights while the context lasts."""
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_()
    try:
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)


class _Tuned:
    """One weight that is improved: W = W₀ + Φ Lᵀ on some rows, L Lᵀ the inverse of the input's second moment.

    In Φ the error is about equally curved in all directions of the input, which is what L-BFGS wants.

    Attributes:
        module: `nn.Linear` or `Conv1D`.
        direction: Φ, (rows, in).
    """

    def __init__(self, module: nn.Module, rows: Tensor, second: Tensor) -> None:
        self.module = module
        self._rows = rows.to(second.device)
        self._start = _weight(module).detach().clone()
        ridge = WHITENING_RIDGE * second.diagonal().mean()
        inverse = torch.linalg.inv(second + ridge * torch.eye(len(second), dtype=second.dtype, device=second.device))
        self._whiten = torch.linalg.cholesky(inverse).to(self._start.dtype)
        zeros = torch.zeros(len(rows), len(second), dtype=self._start.dtype, device=self._start.device)
        self.direction = zeros.requires_grad_()

    @property
    def weight(self) -> nn.Parameter:
        """As the module stores it."""
        return parameter(self.module, "weight")

    @torch.no_grad()
    def write(self) -> None:
        """Put the weight that Φ stands for into the module."""
        _weight(self.module).copy_(self._start.index_add(0, self._rows, self.direction.detach() @ self._whiten.T))

    def add(self, gradient: Tensor, *, first: bool) -> None:
        """Turn a gradient of the weight into one of Φ, and add it to those since the `first`."""
        rows = gradient.T if isinstance(self.module, Conv1D) else gradient
        of_direction = rows[self._rows] @ self._whiten
        earlier = self.direction.grad
        self.direction.grad = of_direction if first or earlier is None else earlier + of_direction


def _tuned(calibration: Calibration, site: Site, stream: LayerwisePass) -> list[_Tuned]:
    """The weights of a unit that are fitted: all of an MLP; values and output of attention, its pattern stays."""
    family, model = calibration.family, calibration.model
    modules = _input_projections(calibration, site)
    rows = {module: torch.arange(len(_weight(module))) for module in modules}
    if site.unit == "attention":
        rows = dict([family.value_features(model, site.layer)])
    second = _second_moment(stream, site.layer, modules[0])
    tuned = [_Tuned(module, features, second) for module, features in rows.items()]
    every = torch.arange(len(_weight(site.output)))
    return [*tuned, _Tuned(site.output, every, _second_moment(stream, site.layer, site.output))]


def _second_moment(stream: LayerwisePass, layer: int, module: nn.Module) -> Tensor:
    """E[x xᵀ] of what goes into a module, (in, in), float64."""
    sums: list[Tensor] = []
    tokens: list[int] = []

    def see(_: int, inputs: Tensor) -> None:
        rows = rows_of(inputs)
        sums.append(gram(rows).double())
        tokens.append(len(rows))

    stream.run_to(layer, module, see)
    return torch.stack(sums).sum(0) / sum(tokens)


def _input_projections(calibration: Calibration, site: Site) -> list[nn.Module]:
    """The projections that read the unit's input."""
    parts = calibration.family.parts(calibration.model, site.layer, site.unit)
    return [part.module for part in parts[:-1] if isinstance(part.module, nn.Linear | Conv1D)]


def _weight(module: nn.Module) -> Tensor:
    """(out, in); a view."""
    weight = parameter(module, "weight")
    return weight.T if isinstance(module, Conv1D) else weight
