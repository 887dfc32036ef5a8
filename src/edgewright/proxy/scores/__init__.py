"""Methods: training-free scores, one paper a file, over `proxy/base.py`."""
