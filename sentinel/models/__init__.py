"""Transformer models as Sentinel sees them: loaded safely, gated per group, cut, exported."""
