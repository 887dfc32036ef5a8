"""Which layers learn, within a memory: contributions measured one by one, then evolution over their sums.

    contribution of biases  d_k = accuracy with the biases of the last k layers learning - accuracy with the head alone
    of a weight's share     d_(i, r) = accuracy with share r of weight i on top of the biases down to i - that of biases
    searched                max  d_k + sum_i d_(i, r_i)    where  memory_bits(scheme) <= budget

The sum is a model: it takes contributions to add up. Evolution: the better half of each generation stays, children mix
two of them layer by layer and change a few; one that does not fit gives up shares at random until it does.

Source: Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022, arXiv:2206.15472, section 3.2. Differs from
the paper: it gives no sizes of the evolution; these find the optimum wherever it could be enumerated. Checked against:
all schemes of small problems (tests/backward/test_scheme_search.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from edgewright.backward.rules.sparse_update import Scheme, layer_bits
from edgewright.backward.survey import Site
from edgewright.core.errors import BudgetInfeasible
from edgewright.core.seed import rng

SHARES = (1.0, 1 / 2, 1 / 4, 1 / 8)


@dataclass(frozen=True, slots=True)
class Contributions:
    """In points of accuracy.   biases: of the biases of the last k layers, for k = 0 (which is 0) to all.
    weights: of (layer, share)."""

    biases: tuple[float, ...]
    weights: Mapping[tuple[str, float], float]


def contributions(
    convs: Sequence[Site],
    accuracy: Callable[[Scheme], float],
    *,
    layers: Sequence[str] | None = None,
    shares: Sequence[float] = SHARES,
    deepest: int | None = None,
) -> Contributions:
    """Measure them: one short training (`accuracy`, from the same start each time) for each.

    layers: whose weights are tried (all of the last `deepest`).   deepest: how many layers' biases may learn (all).
    """
    names = [site.name for site in convs]
    deepest = len(names) if deepest is None else deepest
    plain = [accuracy(Scheme(k)) for k in range(deepest + 1)]
    weights: dict[tuple[str, float], float] = {}
    for depth, name in enumerate(reversed(names[len(names) - deepest :]), 1):
        if layers is None or name in layers:
            for share in shares:
                weights[name, share] = accuracy(Scheme(depth, {name: share})) - plain[depth]
    return Contributions(tuple(value - plain[0] for value in plain), weights)


def gain(scheme: Scheme, known: Contributions) -> float:
    """What a scheme is predicted to bring, in points."""
    return known.biases[scheme.num_biases] + sum(known.weights[one] for one in scheme.shares.items())


def best_scheme(
    convs: Sequence[Site],
    known: Contributions,
    budget_bits: int,
    *,
    seed: int = 0,
    population: int = 64,
    generations: int = 60,
) -> Scheme:
    """The scheme of the largest predicted gain that evolution finds within `budget_bits` of `memory_bits`.

    Errors: BudgetInfeasible where the budget is negative; a budget for nothing gives the scheme of nothing.
    """
    if budget_bits < 0:
        raise BudgetInfeasible("the memory for an update scheme is negative; give at least 0 bits")
    space = _Space(convs, known, budget_bits)
    random = rng(seed, "scheme", budget_bits)
    living = [space.fitting(space.anything(random), random) for _ in range(population)]
    living.append(Scheme(0))
    for _ in range(generations):
        parents = _ranked(living, known)[: population // 2]
        children = [space.child(*random.sample(parents, 2), random) for _ in range(population)]
        living = parents + [space.fitting(child, random) for child in children]
    return _ranked(living, known)[0]


def _ranked(schemes: list[Scheme], known: Contributions) -> list[Scheme]:
    """Best first, the same one once as long as two are left."""
    distinct = {(one.num_biases, tuple(sorted(one.shares.items()))): one for one in schemes}
    ranked = sorted(distinct.values(), key=lambda one: -gain(one, known))
    return ranked if len(ranked) > 1 else ranked * 2


class _Space:
    """The schemes that may be, and what each costs."""

    def __init__(self, convs: Sequence[Site], known: Contributions, budget: int) -> None:
        self.names = [site.name for site in convs]
        self.deepest = len(known.biases) - 1
        self.budget = budget
        self.options: dict[str, list[float]] = {}
        for name, share in known.weights:
            self.options.setdefault(name, []).append(share)
        self.bias_bits = [layer_bits(site, 0.0) for site in convs]
        sites = {site.name: site for site in convs}
        self.bits = {(n, s): layer_bits(sites[n], s) - layer_bits(sites[n], 0.0) for n, s in known.weights}

    def reached(self, depth: int) -> list[str]:
        """Layers whose weights may learn when the last `depth` biases do."""
        return [name for name in self.names[len(self.names) - depth :] if name in self.options]

    def anything(self, random: Random) -> Scheme:
        depth = random.randint(0, self.deepest)
        chosen = {name: random.choice(self.options[name]) for name in self.reached(depth) if random.random() < 0.5}
        return Scheme(depth, chosen)

    def child(self, one: Scheme, other: Scheme, random: Random) -> Scheme:
        depth = random.choice((one.num_biases, other.num_biases))
        if random.random() < 0.3:
            depth = min(self.deepest, max(0, depth + random.choice((-3, -2, -1, 1, 2, 3))))
        shares: dict[str, float] = {}
        for name in self.reached(depth):
            share = random.choice((one, other)).shares.get(name, 0.0)
            if random.random() < 0.15:
                share = random.choice([0.0, *self.options[name]])
            if share:
                shares[name] = share
        return Scheme(depth, shares)

    def fitting(self, scheme: Scheme, random: Random) -> Scheme:
        """The scheme with shares given up at random, then depth, until it fits."""
        shares, depth = dict(scheme.shares), scheme.num_biases
        while self.cost(depth, shares) > self.budget:
            if shares:
                name = random.choice(sorted(shares))
                smaller = [share for share in self.options[name] if share < shares[name]]
                if smaller and random.random() < 0.5:
                    shares[name] = max(smaller)
                else:
                    del shares[name]
            else:
                depth -= 1
        return Scheme(depth, shares)

    def cost(self, depth: int, shares: Mapping[str, float]) -> int:
        biases = sum(self.bias_bits[len(self.bias_bits) - depth :])
        return biases + sum(self.bits[one] for one in shares.items())
