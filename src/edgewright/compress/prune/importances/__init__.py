"""Methods: what a channel is worth, one published importance a file, over `compress/prune/importance.py`."""
