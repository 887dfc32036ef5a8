"""Methods: kinds of task, one a file, over `task/kind.py`."""
