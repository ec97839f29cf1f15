"""Reopens removed groups of a model and inserts new ones: which, and what they start from."""
