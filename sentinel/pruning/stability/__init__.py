"""Keeps training on its feet: what may go wrong at a step, how it is noticed, and what is done about it."""
