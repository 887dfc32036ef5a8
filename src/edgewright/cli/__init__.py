"""The command line: a thin skin over the functions of the same names in Python.

One file for each kind of work; importing one adds its commands to the app, in this order.
"""

from edgewright.cli import design

# isort: split
from edgewright.cli import adapt

# isort: split
from edgewright.cli import compress

# isort: split
from edgewright.cli import ship

# isort: split
from edgewright.cli import research

# isort: split
from edgewright.cli import device

# isort: split
from edgewright.cli import catalogue
from edgewright.cli.app import main

__all__ = ["adapt", "catalogue", "compress", "design", "device", "main", "research", "ship"]
