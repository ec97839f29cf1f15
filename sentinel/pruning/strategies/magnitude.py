"""Baseline: the size of a group's weights."""

import torch

from sentinel.pruning.calibration import Calibration


def importance(calibration: Calibration) -> list[torch.Tensor]:
    """‖W_q,h‖² + ‖W_k,h‖² + ‖W_v,h‖² + ‖W_o,h‖², relative to the mean of the layer.

    The scale of weights differs between layers for reasons that have nothing to do with
    importance, so only the share within the layer is compared across layers.
    """
    model, family = calibration.model, calibration.family
    scores = []
    for site in family.sites(model):
        squares = [
            sum(float(weight.double().square().sum()) for weight in family.group_weights(model, site.layer, group))
            for group in range(site.num_groups)
        ]
        layer_scores = torch.tensor(squares, dtype=torch.float64)
        scores.append(layer_scores / layer_scores.mean())
    return scores
