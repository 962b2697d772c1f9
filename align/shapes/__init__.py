"""The embedded world: captions, an exact judge of coloured shapes and what is preferred among them, with shipped weights.
Imports no torch.

Scenes and their drawing are for training it alone: ``scripts/shapes_training``.
"""

CHECKER_VERSION = "1"
"""Raised when ``checker`` comes to say something else of a picture: the fingerprint of its verdicts."""
