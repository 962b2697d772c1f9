"""Which words of a prompt belong together, where their tokens are, and an objective on attention maps."""
