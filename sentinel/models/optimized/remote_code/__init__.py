"""Modelling files that travel inside uneven checkpoints; copied verbatim, never imported by Sentinel."""
