"""API keys, as an operator makes them."""
