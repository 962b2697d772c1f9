"""The embedded world: captions, pictures and an exact judge of coloured shapes, with shipped weights.

``grammar`` says what can be asked for, ``render`` draws it, ``checker`` reads a picture back,
``preferences`` ranks pictures.  None of them imports torch.
"""

CHECKER_VERSION = "1"
"""Raised when ``checker`` comes to say something else of a picture: the fingerprint of its verdicts."""
