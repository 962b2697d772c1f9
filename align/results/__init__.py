"""Results of runs: keep them, read them, compare them. Reads what the runner wrote and imports no torch."""
