"""Second-order change of KL(dense ‖ pruned) when groups go, with what they do to each other."""

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.gate_gradients import gate_gradients, sampled_log_likelihoods
from sentinel.pruning.ranking import Ranking, by_rows


def rank(calibration: Calibration) -> list[Ranking]:
    """½ 1_Sᵀ F 1_S in nats per token, F_hk = E[z_h z_k], z = ∂log p(y)/∂m, y sampled from the model.

    With sampled labels F is the Hessian of the KL divergence in the gates (Kwon et al. 2022 with the empirical one).
    Each site's order is greedy by its own block of F; selection then swaps pairs by the whole matrix.
    """
    gradients = gate_gradients(
        calibration, lambda logits, _, number: sampled_log_likelihoods(logits, seed=calibration.seed + number)
    )
    return [by_rows(gradient / calibration.windows.numel() ** 0.5) for gradient in gradients]
