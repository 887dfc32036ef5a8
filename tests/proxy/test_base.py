"""The pass: what is computed, how often, and what the evidence holds."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgewright.proxy.base import Evidence, Proxy, score
from edgewright.proxy.resolve import resolve_proxies


def collect(*needs: str) -> tuple[Proxy, list[Evidence]]:
    seen: list[Evidence] = []

    def update(state: None, evidence: Evidence) -> None:
        seen.append(evidence)

    proxy = Proxy(
        name="spy",
        source="test",
        summary="test",
        needs=frozenset(needs),
        init=lambda s: None,
        update=update,
        finish=lambda s: 1.0,
    )
    return proxy, seen


class Counted(nn.Module):
    """Counts the passes made through a network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forwards, self.backwards = inner, 0, 0

    def forward(self, x):
        self.forwards += 1
        logits = self.inner(x)
        if logits.requires_grad:
            logits.register_hook(self.count_backward)
        return logits

    def count_backward(self, gradient):
        self.backwards += 1


@pytest.mark.parametrize(
    ("names", "forwards", "backwards"),
    [
        (["params"], 0, 0),
        (["params", "macs"], 1, 0),
        (["zico"], 3, 3),
        (["zico", "log_sizes", "zico_compat", "params"], 3, 3),
    ],
)
def test_number_of_passes(names, forwards, backwards, small, batches):
    model = Counted(small())
    score(model, batches(3), resolve_proxies(names))
    assert (model.forwards, model.backwards) == (forwards, backwards)


def test_gradients_equal_a_plain_backward_pass(small, batches):
    proxy, seen = collect("gradients")
    model = small()
    model.drop.p = 0.0
    score(model, batches(2), [proxy])
    for evidence, (x, y) in zip(seen, batches(2), strict=True):
        plain = small()
        plain.drop.p = 0.0
        loss = F.cross_entropy(plain(x), y)
        loss.backward()
        assert torch.equal(evidence.loss, loss)
        assert set(evidence.gradients) == {"stem.0", "deep", "dead", "head"}
        for name, gradient in evidence.gradients.items():
            expected = plain.get_submodule(name).weight.grad
            torch.testing.assert_close(
                gradient, torch.zeros_like(gradient) if expected is None else expected, rtol=1e-4, atol=1e-5
            )


def test_activations_and_their_gradients(small, batches):
    proxy, seen = collect("activations", "activation_gradients")
    score(small(), batches(1), [proxy])
    (evidence,) = seen
    assert not evidence.gradients and evidence.activations["head"].shape == (5, 4)
    # d cross-entropy / d logits in closed form: (softmax - one-hot) / N
    expected = (evidence.logits.softmax(1) - F.one_hot(evidence.targets, 4)) / 5
    torch.testing.assert_close(evidence.activation_gradients["head"], expected, rtol=1e-4, atol=1e-5)
    # The in-place ReLU has not overwritten what the batch norm before it gave.
    assert bool((evidence.activations["stem.1"] < 0).any())
    assert torch.equal(evidence.activations["stem.1"].relu(), evidence.activations["stem.2"])


def test_a_forward_proxy_makes_no_graph(small, batches):
    proxy, seen = collect("forward")
    model = Counted(small())
    score(model, [(x, None) for x, _ in batches(2)], [proxy])
    assert (model.forwards, model.backwards, len(seen)) == (2, 0, 2)
    assert seen[0].loss is None and not seen[0].activations


def test_calls_of_one_module_are_told_apart(batches):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x)).mean((2, 3))

    x, _ = batches(1)[0]
    y = torch.zeros(len(x), dtype=torch.int64)
    assert score(Twice(), [(x, y)], resolve_proxies(["macs"]))["macs"] == 2 * (2 * 2 * 9) * 9 * 7
    proxy, seen = collect("activations")
    score(Twice(), [(x, y)], [proxy])
    assert list(seen[0].activations) == ["conv", "conv#2"]


def test_undefined_is_missing_and_not_finite_is_last(small):
    def constant(name: str, value: float, higher: bool = True, reason: str = "") -> Proxy:
        return Proxy(
            name=name,
            source="t",
            summary="t",
            init=lambda s: value,
            finish=float,
            higher_is_better=higher,
            undefined=lambda m: reason,
        )

    given = [constant("a", math.nan), constant("b", math.inf), constant("c", math.nan, higher=False)]
    missing = constant("d", 1.0, reason="this network has no batch norm")
    assert score(small(), [], [*given, missing]) == {"a": -math.inf, "b": -math.inf, "c": math.inf}


def test_noise_belongs_to_the_proxy_and_the_batch(small, batches):
    proxy, seen = collect("forward")
    score(small(), batches(2), [proxy], seed=3)
    draws = [torch.rand(1, generator=seen[i].generator(name)).item() for i in (0, 1) for name in ("x", "y")]
    assert len(set(draws)) == 4
    assert torch.rand(1, generator=seen[0].generator("x")).item() == draws[0]


def test_dropout_follows_the_seed(small, batches):
    values = [score(small(), batches(), resolve_proxies(["zico"]), seed=seed)["zico"] for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
