"""Methods: what may be built, one space a file, over `space/base.py`."""
