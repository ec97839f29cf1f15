"""Artifacts: the immutable files of a finished job."""
