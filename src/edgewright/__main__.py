"""`python -m edgewright` is the command line."""

from edgewright.cli import main

main()
