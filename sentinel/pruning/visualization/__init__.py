"""Pictures of runs: a definition each, from plain data to an Altair chart. Knows results and series, no model."""
