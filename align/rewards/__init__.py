"""Rewards: what judges a picture for a prompt; see ``align.rewards.registry`` for the list."""
