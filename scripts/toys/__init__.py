"""What ``scripts/toy.py`` measures."""
