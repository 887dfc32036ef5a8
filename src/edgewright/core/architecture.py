"""Architectures as data: immutable, comparable, and the same after a trip through JSON."""

import hashlib

from edgewright.core.data import Frozen


class Architecture(Frozen):
    """What a space samples and builds. `space` names the space that can read it."""

    space: str

    def key(self) -> str:
        """A short digest of the whole content: equal architectures, equal keys."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
