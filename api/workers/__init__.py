"""Workers: who runs jobs, and on what."""
