"""Methods: where networks that have learned come from, one file each."""
