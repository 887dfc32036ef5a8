"""Methods: heads, from the feature maps of a stem to the outputs of a kind, one a file, over `model/head.py`."""
