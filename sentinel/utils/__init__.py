"""Small parts that everything above may use. Knows no model family."""
