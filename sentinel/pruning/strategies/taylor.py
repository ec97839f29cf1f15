"""First-order change of the loss when a group's gate closes."""

from sentinel.pruning.calibration import Calibration
from sentinel.pruning.gate_gradients import gate_gradients
from sentinel.pruning.ranking import Ranking, by_importance
from sentinel.utils.metrics import next_token_losses


def rank(calibration: Calibration) -> list[Ranking]:
    """E_window |Σ_t g_t · W_h x_h,t| = E_window |∂loss/∂m_h| at open gates (Michel 2019). In nats, so layers compare.

    The absolute value is taken per window: a trained model sits where the mean gradient is near zero, whatever
    its groups do (`docs/decisions/0005`).
    """
    gradients = gate_gradients(calibration, lambda logits, batch, _: next_token_losses(logits, batch).mean(1))
    return [by_importance(gradient.abs().mean(0)) for gradient in gradients]
