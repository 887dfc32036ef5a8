"""The controller's probabilities are probabilities, it learns, and the memory makes its state speak of its choices."""

import itertools
import math
from statistics import mean

import pytest
import torch

from edgewright.search.strategies.reinforce import Controller, Memory, Reinforce, state_correlation


@pytest.fixture
def controller():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Controller((3, 2, 4), 8)


def test_probabilities_sum_to_one_and_entropy_is_theirs(controller):
    every = torch.tensor(list(itertools.product(range(3), range(2), range(4))))
    with torch.no_grad():
        log_probability, entropy, _ = controller(every)
    p = log_probability.exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-5)
    # The entropies along the paths average to the entropy of the whole distribution.
    assert (p * entropy).sum().item() == pytest.approx(-(p * log_probability).sum().item(), abs=1e-5)


def test_draws_follow_the_probabilities(controller):
    drawn = controller.draw(6000, torch.Generator().manual_seed(0))
    every = list(itertools.product(range(3), range(2), range(4)))
    with torch.no_grad():
        p = controller(torch.tensor(every))[0].exp().tolist()
    for vector, probability in zip(every, p, strict=True):
        spread = math.sqrt(probability * (1 - probability) / 6000)
        assert abs(drawn.count(vector) / 6000 - probability) < 4.5 * spread


def test_the_gradient_of_the_log_probability(controller):
    controller.double()
    bias = controller.policy[1].bias

    def log_probability():
        return (controller.double()(torch.tensor([[2, 1, 3], [0, 0, 1]]))[0] * torch.tensor([1.0, -0.5])).sum()

    log_probability().backward()
    with torch.no_grad():
        for place, expected in enumerate(bias.grad.tolist()):
            values = []
            for step in (1e-3, -2e-3):
                bias[place] += step
                values.append(log_probability().item())
            bias[place] += 1e-3
            assert (values[0] - values[1]) / 2e-3 == pytest.approx(expected, abs=2e-4)


GOOD = (5, 0, 3, 2, 4)


def search(space, memory, seed, rounds=12):
    strategy = Reinforce(space, lambda a: 0.0, seed, memory=memory)
    for _ in range(rounds):
        new = strategy.ask(16)
        strategy.tell([(a, float(hits(a.digits))) for a in new])
    return strategy


def hits(vector):
    return sum(d == good for d, good in zip(vector, GOOD, strict=True))


def test_learns_what_is_good_at_each_position(vectors):
    drawn = search(vectors(), None, 1).controller.draw(500, torch.Generator().manual_seed(0))
    assert mean(map(hits, drawn)) > 5 / 6 + 1.0  # 5 / 6 is chance


def test_the_memory_raises_the_state_architecture_correlation(vectors):
    chosen = list(itertools.product(range(0, 6, 2), repeat=5))[::2]
    plain, remembering = (
        mean(state_correlation(search(vectors(), memory, seed).controller, chosen) for seed in range(3))
        for memory in (None, Memory())
    )
    assert remembering > plain


def test_scores_that_are_no_numbers_leave_the_weights_numbers(vectors):
    strategy = Reinforce(vectors(), lambda a: 0.0, 0)
    for value in (math.nan, -math.inf, 1.0):
        strategy.tell([(a, value) for a in strategy.ask(4)])
    assert all(torch.isfinite(p).all() for p in strategy.controller.parameters())
