"""Decides cycle by cycle how far to cut, how long to heal, and whether and where to grow. Loads no torch."""
