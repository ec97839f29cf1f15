"""State on disk from which a run goes on."""
