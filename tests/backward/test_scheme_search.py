"""The search of an update scheme: the optimum of small problems, the budget kept, contributions as defined."""

import itertools

import pytest
import torch
from torch import nn

from edgewright.backward.plans.scheme_search import SHARES, Contributions, best_scheme, contributions, gain
from edgewright.backward.rules.sparse_update import Scheme, convolutions, memory_bits
from edgewright.backward.survey import Site, survey
from edgewright.core.errors import BudgetInfeasible
from edgewright.core.seed import rng


def layers(count: int) -> tuple[Site, ...]:
    widths = (4, 9, 6, 12, 5, 8, 7)[: count + 1]
    model = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)))
    return convolutions(survey(model, torch.zeros(1, 4, 9, 6)))


def known(convs: tuple[Site, ...], seed: int) -> Contributions:
    random = rng(seed, "gains")
    biases = list(itertools.accumulate(random.uniform(-0.2, 1) for _ in convs))
    weights = {
        (site.name, share): random.uniform(-0.5, 3) * share**0.4 for site in convs for share in (1.0, 0.5, 0.125)
    }
    return Contributions((0.0, *biases), weights)


def best_of_all(convs: tuple[Site, ...], gains: Contributions, budget: int) -> float:
    names, best = [site.name for site in convs], 0.0
    for depth in range(len(convs) + 1):
        for shares in itertools.product((0.0, 1.0, 0.5, 0.125), repeat=depth):
            scheme = Scheme(depth, {n: s for n, s in zip(names[len(names) - depth :], shares, strict=True) if s})
            if memory_bits(scheme, convs) <= budget:
                best = max(best, gain(scheme, gains))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_best_of_all_schemes(seed: int) -> None:
    convs = layers(5)
    gains = known(convs, seed)
    whole = memory_bits(Scheme(5, {site.name: 1.0 for site in convs}), convs)
    for budget in (whole // 8, whole // 3, whole // 2):
        scheme = best_scheme(convs, gains, budget, seed=seed)
        assert memory_bits(scheme, convs) <= budget
        assert gain(scheme, gains) == pytest.approx(best_of_all(convs, gains, budget))
        assert scheme == best_scheme(convs, gains, budget, seed=seed)


def test_nothing_fits_into_nothing() -> None:
    convs = layers(3)
    assert best_scheme(convs, known(convs, 0), 0) == Scheme(0)
    with pytest.raises(BudgetInfeasible, match="negative"):
        best_scheme(convs, known(convs, 0), -1)


def test_contributions_are_differences_to_biases_alone() -> None:
    convs = layers(3)
    seen: list[Scheme] = []

    def accuracy(scheme: Scheme) -> float:
        seen.append(scheme)
        return 50 + 2 * scheme.num_biases + sum(10 * share for share in scheme.shares.values())

    found = contributions(convs, accuracy)
    assert found.biases == (0, 2, 4, 6)
    assert found.weights == {(site.name, share): 10 * share for site in convs for share in SHARES}
    assert len(seen) == 4 + 3 * 4
    assert {s.num_biases for s in seen if convs[0].name in s.shares} == {3}
    few = contributions(convs, accuracy, layers=[convs[2].name], shares=(0.5,), deepest=2)
    assert len(few.biases) == 3 and list(few.weights) == [(convs[2].name, 0.5)]
