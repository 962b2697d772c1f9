"""Judges of pictures that are not in this process: behind a URL, a chat endpoint, a pipe."""
