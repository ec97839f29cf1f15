"""Uploads: models and texts that users bring."""
