"""A pool that breaks down, as a killed run does."""

from edgewright.core.pool import InProcess


class Cut(Exception):
    pass


class CutAfter(InProcess):
    """A pool that breaks down after `count` items."""

    def __init__(self, count: int) -> None:
        self.left = count

    def imap(self, function, items):
        for item in items:
            if self.left == 0:
                raise Cut
            self.left -= 1
            yield function(item)
