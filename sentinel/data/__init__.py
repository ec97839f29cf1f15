"""Text in, windows of tokens out. Knows no model."""
