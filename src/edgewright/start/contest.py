"""Several spaces that compete: networks from scratch, and those that each start can be made into.

An architecture says itself which space it is of; whatever is asked of one is asked of that.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from torch import nn

from edgewright.core.errors import BadInput
from edgewright.core.tensors import Size
from edgewright.ir.graph import Graph
from edgewright.space.base import Space


class Contest(Space):
    """members: the spaces, for one task."""

    name = "contest"
    source = "this project"
    summary = "networks of several spaces"

    def __init__(self, members: Sequence[Space]) -> None:
        first = members[0]
        super().__init__(first.inputs, first.head)
        self.members = tuple(members)

    def of(self, architecture: Any) -> Space:
        """The member that an architecture is of."""
        return self._named(architecture.space, getattr(architecture, "start", None))

    def _named(self, space: str, start: str | None) -> Space:
        for member in self.members:
            own = getattr(member, "start", None)
            if member.name == space and (own is None or own.digest == start):
                return member
        of_start = f", start {start}" if start else ""
        raise BadInput(f"architecture: it is of the space {space}{of_start}, not of one of these")

    def sample(self, rng: Random) -> Any:
        return rng.choice(self.members).sample(rng)

    def mutate(self, architecture: Any, rng: Random) -> Any:
        return self.of(architecture).mutate(architecture, rng)

    def crossover(self, first: Any, second: Any, rng: Random) -> Any:
        member = self.of(first)
        return member.crossover(first, second if self.of(second) is member else first, rng)

    def stem(self, architecture: Any) -> tuple[tuple[str, Graph], ...]:
        return self.of(architecture).stem(architecture)

    def blocks(self, architecture: Any) -> tuple[tuple[str, Graph], ...]:
        return self.of(architecture).blocks(architecture)

    def graph(self, architecture: Any) -> Graph:
        return self.of(architecture).graph(architecture)

    def parts(self, architecture: Any) -> dict[str, nn.Module]:
        return self.of(architecture).parts(architecture)

    def build(self, architecture: Any) -> nn.Module:
        return self.of(architecture).build(architecture)

    def resolution(self, architecture: Any) -> Size:
        return self.of(architecture).resolution(architecture)

    def head_width(self, architecture: Any) -> int:
        return self.of(architecture).head_width(architecture)

    def read(self, data: dict[str, Any]) -> Any:
        return self._named(data.get("space", ""), data.get("start")).read(data)

    def smallest(self) -> Any:
        return self.members[0].smallest()

    def describe(self, architecture: Any) -> str:
        return self.of(architecture).describe(architecture)
