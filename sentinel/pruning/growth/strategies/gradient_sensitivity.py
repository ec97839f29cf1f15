"""First the groups that the model misses the most, by the gradient of the divergence at their closed gates."""

from sentinel.pruning.growth.output_errors import output_errors
from sentinel.pruning.growth.probe import Gains, Probe


def gains(probe: Probe) -> Gains:
    """½ (out / κ) tr(G_h C_hh⁻¹ G_hᵀ) per candidate h (`output_errors`).

    RigL (2020) reopens the weights with the largest gradients; here a whole slice comes back, and its gain is that of
    the best slice its inputs allow, so that units, layers and initialisations compare. One forward and backward pass.
    """
    singly = {
        unit: {layer: [[place] for place in probe.places(unit, layer)] for layer in layers}
        for unit, layers in probe.candidates.items()
    }
    errors = output_errors(probe.calibration(), probe.dense, singly)
    return {unit: {layer: errors[unit, layer].gains() for layer in layers} for unit, layers in singly.items()}
