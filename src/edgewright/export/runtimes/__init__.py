"""Methods: one adapter a runtime, over `export/runtimes/base.py`."""
