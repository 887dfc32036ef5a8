"""The main job: from a task and a budget to a network that fits, measured."""
