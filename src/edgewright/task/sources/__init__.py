"""Methods: where data comes from, one kind of place a file, over `task/base.py`."""
