"""Methods: rewrites of a trained network, one a file, over `compress/base.py`."""
