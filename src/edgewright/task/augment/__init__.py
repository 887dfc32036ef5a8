"""Random changes of a batch: image and target together."""
