"""A device from a few measurements."""
