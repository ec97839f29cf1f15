"""Webhooks: who is told of what happens, and what became of that."""
