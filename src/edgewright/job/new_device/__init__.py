"""A device added from a few measured networks."""
