"""What each strategy finds on a published table."""
