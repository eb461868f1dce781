"""The full engine: every mutant through the whole network."""
