"""Training of a backbone, or of what judges it: one loop, and a small file for each thing that is learned."""
