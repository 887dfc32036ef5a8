"""Boards that are not here, as data: limits, laws, memory plans."""
