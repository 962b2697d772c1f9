"""The one sampling loop and its parts."""
