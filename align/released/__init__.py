"""Faults of published programs, as parts in the place of right ones: numbers of their papers can be made again with them."""
