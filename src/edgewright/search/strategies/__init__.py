"""Methods: who proposes the next architecture, one strategy a file, over `search/base.py`."""
