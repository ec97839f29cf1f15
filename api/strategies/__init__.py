"""Strategies: what can compute importance."""
