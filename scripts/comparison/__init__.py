"""All methods at equal compute on the shapes world: the arms and the page of ``scripts/compare.py``."""
