"""Tries the laws of pruning on a model that someone has."""
