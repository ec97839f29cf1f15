"""Jobs: accept, show, cancel, and tell what happens."""
