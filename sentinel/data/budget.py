"""How much goes through a model at once. Torch-free."""

# Tokens of one forward pass: enough to keep a device busy, few enough for the logits of a large vocabulary.
FORWARD_TOKENS = 4096
