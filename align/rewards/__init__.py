"""Rewards: what judges a picture for a prompt; see :mod:`align.rewards.registry` for the list."""
