"""Usage: what the keys of a tenant have taken."""
