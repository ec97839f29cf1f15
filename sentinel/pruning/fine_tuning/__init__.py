"""Training after a cut."""
