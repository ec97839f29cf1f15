"""What changes a loaded model without cutting it: gates."""
