"""How a network learns: recipes, clocks, one loop, checkpoints, evaluation."""
