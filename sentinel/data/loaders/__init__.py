"""Where documents come from and how they become windows."""
