"""Which channels and heads go: groups that go together, what they cost, what they are worth."""
