"""Which file is really fastest: candidates built, held against their source, measured in turns."""
