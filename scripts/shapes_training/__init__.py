"""Training of the embedded world; one module per stage, driven by ``scripts/train_shapes.py``."""
