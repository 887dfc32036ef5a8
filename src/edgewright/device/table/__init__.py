"""Latency of networks that were never built: pieces measured in their place, and calibrated."""
