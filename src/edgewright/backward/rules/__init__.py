"""Methods: another backward for a layer, one published rule a file, over `backward/base.py`."""
