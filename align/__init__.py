"""Inference-time alignment of text-to-image diffusion models: one sampling loop, many methods."""
