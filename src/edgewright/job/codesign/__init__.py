"""FLASH: laws of accuracy and latency from a few trained samples."""
