"""Frozen text-to-image models behind one interface: encode, predict, decode."""
