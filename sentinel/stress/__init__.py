"""How well a pruned model's function survives, measured beside the dense model's under the same."""
