"""The embedded world: captions and an exact judge of coloured shapes, with shipped weights.  Imports no torch.

Scenes, their drawing and what is preferred among them are for training alone: ``scripts/shapes_training``.
"""

CHECKER_VERSION = "1"
"""Raised when ``checker`` comes to say something else of a picture: the fingerprint of its verdicts."""
