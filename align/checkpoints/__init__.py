"""Where checkpoints are: embedded ones, local folders and the hub's cache; how to fetch them.  Imports no torch."""
