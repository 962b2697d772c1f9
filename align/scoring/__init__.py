"""Scoring pictures that are there already: where they come from, what they are scored with, and the work."""
