"""Training and measuring estimates of the expected reward."""
