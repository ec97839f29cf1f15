"""What the model's predictions lose when one group alone is closed: the oracle that cheaper scores are held against."""

import torch

from sentinel.models.adaptive.gates import Gates
from sentinel.pruning.calibration import Calibration
from sentinel.pruning.ranking import Ranking, by_importance
from sentinel.utils.metrics import kl_divergences

# Ablations cost a forward pass of every window for each group.
WINDOWS = 8
# Windows, each with its own closed gate, in one forward pass.
ROWS = 32


@torch.no_grad()
def rank(calibration: Calibration) -> list[Ranking]:
    """KL(dense ‖ model without h) in nats per token; one gate row per sample tests many groups in one pass."""
    windows = calibration.windows[:WINDOWS]
    sites = calibration.sites()
    scores = [torch.zeros(site.num_groups, dtype=torch.float64) for site in sites]
    with Gates(sites) as gates:
        for window in windows:
            dense = calibration.model(input_ids=window[None], use_cache=False).logits
            for index, site in enumerate(sites):
                scores[index] += _ablate(calibration, gates, index, window, dense)
                gates.set(index, torch.ones(site.num_groups))
    tokens = windows.shape[0] * (windows.shape[1] - 1)
    return [by_importance(score / tokens) for score in scores]


def _ablate(
    calibration: Calibration, gates: Gates, index: int, window: torch.Tensor, dense: torch.Tensor
) -> torch.Tensor:
    """Σ_t KL of closing each group of one site on one window, (groups,), float64 on the CPU."""
    closed = 1 - torch.eye(gates.sites[index].num_groups)
    found = []
    for rows in closed.split(ROWS):
        gates.set(index, rows)
        logits = calibration.model(input_ids=window.expand(len(rows), -1), use_cache=False).logits
        found.append(kl_divergences(dense.expand_as(logits), logits).double().sum(-1).cpu())
    return torch.cat(found)
