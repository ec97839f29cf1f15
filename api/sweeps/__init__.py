"""Sweeps: many jobs that are submitted as one, and compared."""
