"""Methods: the report of one job a file, over `report/page.py`."""
