"""A run's network made to keep ceilings at the least loss."""
