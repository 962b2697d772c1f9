"""The typed configuration: schema, conversion from plain values, checks, and its composition with Hydra.

Only ``compose`` imports Hydra; nothing here imports torch.
"""
