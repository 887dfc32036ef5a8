"""Random search: the reference that every other strategy has to beat."""

from collections.abc import Iterable

from edgewright.core.architecture import Architecture
from edgewright.search.base import Excess, Proposals, Scored, Strategy
from edgewright.space.base import Space


class RandomSearch(Strategy):
    """Samples of the space that are inside the budget, without repeats; scores are ignored.

    Where hardly any sample is inside, samples are walked into the budget, so the draw is then not uniform.
    Source: Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012; Li and Talwalkar, "Random
    Search and Reproducibility for NAS", UAI 2019, arXiv:1902.07638.
    """

    name = "random"
    source = "Li and Talwalkar, Random Search and Reproducibility for NAS, UAI 2019, arXiv:1902.07638"
    summary = "random architectures inside the budget"

    def __init__(self, space: Space, excess: Excess, seed: int) -> None:
        self._space, self._proposals = space, Proposals(space, excess, self.name, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._proposals.ask(count, self._space.sample)

    def tell(self, scored: Iterable[Scored]) -> None:
        """Nothing is learned."""
