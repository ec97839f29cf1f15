"""What is removed, and how what is left is repaired."""
