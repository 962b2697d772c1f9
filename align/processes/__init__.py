"""Diffusion processes: the discrete steps, the transition kernel and the way back, as pure functions."""
