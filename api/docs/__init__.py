"""The interface as a page, for people."""
