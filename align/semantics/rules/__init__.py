"""A small English reader: noun phrases and what describes them."""
