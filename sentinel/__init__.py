"""Sentinel: prune, heal and measure transformer language models.

Importing this package loads no torch; `sentinel.experiment` does.
"""
