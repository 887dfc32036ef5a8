"""Which training-free score orders real networks best."""
