"""Which layers learn, and how, inside a budget of memory and compute."""
