"""Repairs a cut layer as a whole: all of its projections, not only those that write to the residual stream.

Unit by unit, what goes in is mapped back (least squares) and the output projection refitted (least squares). Then the
weights of both units are improved together by L-BFGS, until the layer's output is as near to the uncut model's as
they bring it; the last layer's, until the predictions are. No labels, and no gradient through more than one layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sentinel.models.families.base import UNITS, Site
from sentinel.models.families.parts import parameter
from sentinel.models.hooks import inputs_of
from sentinel.pruning.calibration import Calibration, LayerwisePass
from sentinel.pruning.compensation import UncutLayer, apply_refit, input_projections, lack_of, lack_of_residual
from sentinel.pruning.least_squares import SplitSums, gram, refit, rows_of
from sentinel.result import LayerCompensation
from sentinel.utils.metrics import kl_divergences

# Rounds of L-BFGS per layer and iterations of each, every one about a forward and a backward pass of the layer.
# Between rounds the error on held-out windows is looked at.
ROUNDS, ITERATIONS = 8, 5
# A round that lowers it by less than this share is the last.
LEAST_GAIN = 0.005
# Past steps that the curvature is estimated from.
HISTORY = 20
# One calibration window in so many is held out from the fit, if there are that many.
HELD_OUT_EVERY = 8
# Share of the mean diagonal that is added to an input's second moment before it is inverted.
WHITENING_RIDGE = 1e-3


def fit_unit(calibration: Calibration, site: Site, stream: LayerwisePass, uncut: UncutLayer) -> LayerCompensation:
    """Map the inputs of a unit that is cut already back, and refit its output projection to the residual stream."""
    sums, targets = lack_of_residual(calibration, site, stream, uncut)
    record = apply_refit(site, sums)
    if not site.num_groups:
        return record
    _map_inputs_back(calibration, site, stream, uncut)
    after = apply_refit(site, lack_of(site, stream, targets))
    return after.model_copy(update={"error_before": record.error_before})


def fit_layer(calibration: Calibration, layer: int, stream: LayerwisePass, uncut: UncutLayer) -> LayerCompensation:
    """Improve all weights of a layer whose units are fitted, as long as held-out windows agree."""
    fit = _Fit(calibration, layer, stream, uncut)
    before = fit.errors()
    after = _descend(fit, before) if fit.tuned else before
    return LayerCompensation(
        unit="layer", layer=layer, error_before=float(before.mean()), error_after=float(after.mean()), ridge=None
    )


def _map_inputs_back(calibration: Calibration, site: Site, stream: LayerwisePass, uncut: UncutLayer) -> None:
    """W ← W(I + D), with z + D z the best linear guess at the uncut model's input from the cut one's, z."""
    modules = input_projections(calibration, site)
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


def _descend(fit: "_Fit", errors: Tensor) -> Tensor:
    """Every window's error after the descent, from what it was before."""
    optimizer = torch.optim.LBFGS(
        [part.direction for part in fit.tuned],
        max_iter=ITERATIONS,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
        tolerance_grad=0,
        tolerance_change=0,
    )
    directions = fit.directions()
    with _differentiable([part.weight for part in fit.tuned]):
        for _ in range(ROUNDS):
            optimizer.step(fit.closure)
            found = fit.errors()
            before, after = (float(those[fit.held_out].mean()) for those in (errors, found))
            if after < before:
                errors, directions = found, fit.directions()
            if not after < before * (1 - LEAST_GAIN):
                break
    fit.write(directions)
    return errors


class _Fit:
    """The error of one layer, as a function of the directions of its weights.

    Attributes:
        tuned: The weights.
        held_out: Which windows decide when to stop, bool (windows,). All, where there are too few to hold any out.
    """

    def __init__(self, calibration: Calibration, layer: int, stream: LayerwisePass, uncut: UncutLayer) -> None:
        self.tuned = _tuned(calibration, layer, stream)
        self._layer, self._stream, self._wanted = layer, stream, uncut.behind
        self._last = layer == len(calibration.family.layers(calibration.model)) - 1
        self._energy = torch.cat([wanted.float().square().mean((1, 2)) for wanted in self._wanted]).mean()
        self.held_out = torch.arange(len(calibration.windows)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        self._fitted = ~self.held_out
        if not self.held_out.any():
            self.held_out = self._fitted

    def closure(self) -> float:
        """The mean error of the fitted windows at the directions as they are, which get their gradients."""
        self._write()
        total, weights = 0.0, [part.weight for part in self.tuned]
        batches = self._fitted.split([len(hidden) for hidden in self._stream.hidden])
        for index, fitted in enumerate(batches):
            with torch.enable_grad():
                error = self._errors(index)[fitted].sum() / self._fitted.sum()
                gradients = torch.autograd.grad(error, weights)
            total += error.item()
            for part, gradient in zip(self.tuned, gradients, strict=True):
                part.add(gradient, first=index == 0)
        return total

    @torch.no_grad()
    def errors(self) -> Tensor:
        """The error of every window at the directions as they are, (windows,)."""
        self._write()
        return torch.cat([self._errors(index).cpu() for index in range(len(self._stream.hidden))])

    def directions(self) -> list[Tensor]:
        """Copies of all directions."""
        return [part.direction.detach().clone() for part in self.tuned]

    @torch.no_grad()
    def write(self, directions: Sequence[Tensor]) -> None:
        """Put the weights of some directions into the modules."""
        for part, direction in zip(self.tuned, directions, strict=True):
            part.direction.copy_(direction)
        self._write()

    def _write(self) -> None:
        for part in self.tuned:
            part.write()

    def _errors(self, index: int) -> Tensor:
        """Of each output, relative to the mean energy; behind the last layer KL(uncut ‖ cut), nats per token."""
        wanted, output = self._wanted[index], self._stream.output_of(self._layer, index)
        if not self._last:
            return (wanted.float() - output.float()).square().mean((1, 2)) / self._energy
        with torch.no_grad():
            predictions = self._stream.logits_of(index, wanted)
        return kl_divergences(predictions, self._stream.logits_of(index, output)).mean(1)


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
    """One weight that is improved: W = W₀ + Φ Lᵀ, with L Lᵀ the inverse of the input's second moment.

    In Φ the error is about equally curved in all directions of the input, which is what L-BFGS wants. Φ is kept in
    float32 at least, whatever the model is in.

    Attributes:
        module: `nn.Linear` or `Conv1D`.
        direction: Φ, (out, in).
    """

    def __init__(self, module: nn.Module, second: Tensor) -> None:
        self.module = module
        weight = _weight(module).detach()
        self._start = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
        ridge = WHITENING_RIDGE * second.diagonal().mean()
        inverse = torch.linalg.inv(second + ridge * torch.eye(len(second), dtype=second.dtype, device=second.device))
        self._whiten = torch.linalg.cholesky(inverse).to(self._start.dtype)
        self.direction = torch.zeros_like(self._start).requires_grad_()

    @property
    def weight(self) -> nn.Parameter:
        """As the module stores it."""
        return parameter(self.module, "weight")

    @torch.no_grad()
    def write(self) -> None:
        """Put the weight that Φ stands for into the module."""
        _weight(self.module).copy_(self._start + self.direction.detach() @ self._whiten.T)

    def add(self, gradient: Tensor, *, first: bool) -> None:
        """Turn a gradient of the weight into one of Φ, and add it to those since the `first`."""
        rows = gradient.T if isinstance(self.module, Conv1D) else gradient
        of_direction = rows.to(self._start.dtype) @ self._whiten
        earlier = self.direction.grad
        self.direction.grad = of_direction if first or earlier is None else earlier + of_direction


def _tuned(calibration: Calibration, layer: int, stream: LayerwisePass) -> list[_Tuned]:
    """The projections of both units, as far as there are groups left and something goes in."""
    sites = [calibration.family.site(calibration.model, layer, unit) for unit in UNITS]
    alike = [
        modules
        for site in sites
        if site.num_groups
        for modules in (input_projections(calibration, site), [site.output])
    ]
    seconds = _second_moments(stream, layer, [modules[0] for modules in alike])
    heard = [(modules, second) for modules, second in zip(alike, seconds, strict=True) if second.any()]
    return [_Tuned(module, second) for modules, second in heard for module in modules]


def _second_moments(stream: LayerwisePass, layer: int, modules: Sequence[nn.Module]) -> list[Tensor]:
    """E[x xᵀ] of what goes into each module, (in, in), float64."""
    sums = [_weight(module).new_zeros(_weight(module).shape[1:] * 2, dtype=torch.float64) for module in modules]
    with ExitStack() as stack, torch.no_grad():
        for module, moment in zip(modules, sums, strict=True):
            stack.enter_context(inputs_of(module, partial(_add_gram, moment)))
        for index in range(len(stream.hidden)):
            stream.output_of(layer, index)
    tokens = sum(hidden.shape[:-1].numel() for hidden in stream.hidden)
    return [moment / tokens for moment in sums]


def _add_gram(moment: Tensor, inputs: Tensor) -> None:
    moment += gram(rows_of(inputs))


def _weight(module: nn.Module) -> Tensor:
    """(out, in); a view."""
    weight = parameter(module, "weight")
    return weight.T if isinstance(module, Conv1D) else weight
