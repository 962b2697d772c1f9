"""Faults of published programs, as alternative parts: nothing of them is inside the right code (``align/config/quirks.py``)."""
