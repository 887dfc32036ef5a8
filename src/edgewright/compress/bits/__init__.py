"""Fewer bits: learning to be rounded, mixed precision, arithmetic of integers only."""
