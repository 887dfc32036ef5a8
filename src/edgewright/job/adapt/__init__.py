"""A network that has learned goes on learning on new data, inside a training-memory budget."""
