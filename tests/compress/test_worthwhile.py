"""Only merges that are surely faster stay, by a clock of the test's own; and once by the real one."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import nn

from compress.networks import Inverted, images, lived_in, mobile
from edgewright.compress.affine import BorderedConv
from edgewright.compress.base import apply, must_save
from edgewright.compress.planner import plan
from edgewright.compress.rewrites import depthshrinker as ds
from edgewright.compress.rewrites import merge_linear
from edgewright.compress.wiring import trace
from edgewright.compress.worthwhile import saved_ms, timed, worthwhile
from edgewright.core.errors import BadInput
from edgewright.device.measure import Latency
from edgewright.export.blocks import measure_blocks

Asked = list[tuple[list[nn.Module], tuple[int, ...]]]


def took(milliseconds: float, noise: float = 0.0) -> Latency:
    """40 runs around a time; with noise the rounds swing."""
    samples = tuple(milliseconds * (1 + noise * (-1) ** (index // 10 * 3 % 2)) for index in range(40))
    return Latency(
        median_ms=milliseconds, p90_ms=milliseconds, p99_ms=milliseconds, minimum_ms=milliseconds, runs=40,
        reference_ms=1.0, reference_drift=0.0, samples=samples,
    )  # fmt: skip


def clock(price: Callable[[nn.Module, tuple[int, ...]], float]) -> tuple[Asked, Callable[..., list[Latency]]]:
    """A measure that prices modules, and the list of what it was asked."""
    asked: Asked = []

    def measure(modules: Sequence[nn.Module], shape: tuple[int, ...]) -> list[Latency]:
        asked.append((list(modules), shape))
        return [took(price(module, shape)) for module in modules]

    return asked, measure


def num_convs(module: nn.Module, _shape: tuple[int, ...]) -> float:
    return float(sum(isinstance(part, nn.Conv2d) for part in module.modules()))


@torch.no_grad()
def test_merges_stay_where_they_are_faster_and_are_declined_by_name_with_their_times() -> None:
    network = lived_in(
        nn.Sequential(
            Inverted(4, 30, 4, 3, 1), nn.ReLU6(), Inverted(4, 40, 5, 3, 2), nn.ReLU(), Inverted(5, 50, 6, 3, 1)
        )
    )
    x = images(2, 4, 13, 10)
    found = plan(network, x)
    assert [rewrite.layers for rewrite in found.rewrites if rewrite.kind == "merge_linear"] == [("0",), ("2",), ("4",)]
    asked, measure = clock(lambda module, shape: num_convs(module, shape) if shape[2] == 13 else 2.0)
    kept = worthwhile(network, found, measure)
    assert [(shape, [num_convs(module, ()) for module in pair]) for pair, shape in asked] == [
        ((1, 4, 13, 10), [3, 1]),
        ((1, 4, 13, 10), [3, 1]),
        ((1, 5, 7, 5), [3, 1]),
    ]
    merges = [rewrite for rewrite in kept.rewrites if rewrite.kind == "merge_linear"]
    assert [rewrite.layers for rewrite in merges] == [("0",), ("2",)]
    assert "1.000 ms instead of 3.000 ms, 0.33 [0.33, 0.33] of the time" in merges[0].note
    (one,) = kept.declined
    assert one.layers == ("4",)
    assert "not surely faster (2.000 ms instead of 2.000 ms, 1.00 [1.00, 1.00] of the time)" in one.why
    assert len(kept.rewrites) == len(found.rewrites) - 1, "folding is not measured"
    result = apply(network, kept, x)
    assert sum(parameter.numel() for parameter in result.parameters()) == kept.after.params
    assert trace(result, x).macs == kept.after.macs
    assert sum(isinstance(module, BorderedConv) for module in result.modules()) == 2
    assert (result(x) - network(x)).abs().max() < 1e-4


def test_a_gain_within_the_noise_is_no_gain() -> None:
    network = lived_in(nn.Sequential(Inverted(4, 30, 4, 3, 1), nn.ReLU6()))
    found = plan(network, torch.zeros(1, 4, 12, 9), ["merge_linear"])

    def measure(modules: Sequence[nn.Module], shape: tuple[int, ...]) -> list[Latency]:
        return [took(1.0), took(0.99, noise=0.05)]

    left = worthwhile(network, found, measure)
    assert left.rewrites == ()
    assert left.after == left.before
    with pytest.raises(BadInput, match=r"nothing to save.*0: merged it is not surely faster"):
        must_save(left)


def test_linearisations_are_judged_by_the_block_once_merged() -> None:
    network, x = mobile(), torch.zeros(1, 3, 26, 18)
    found = ds.decisions(network, trace(network, x))
    drop = [decision.block for decision in found if decision.mergeable]
    linear = plan(network, x, [partial(ds.find, drop=drop)])
    asked, measure = clock(num_convs)
    merge = partial(merge_linear.find, most_macs=100)
    kept = worthwhile(network, linear, measure, merge=merge)
    assert [rewrite.layers[-1] for rewrite in kept.rewrites] == drop
    for pair, _ in asked:
        before, after = pair
        assert sum(isinstance(part, nn.ReLU) for part in before.modules()) >= 1, "as it is, activations and all"
        assert isinstance(after, nn.Sequential)
        assert isinstance(after[-1], nn.ReLU6), "the new activation is timed with it"
        assert num_convs(after, ()) == 1
    with_stem = plan(network, x, [partial(ds.find, drop=["stem", *drop])])
    left = worthwhile(network, with_stem, measure, merge=merge).declined
    assert [(one.layers[-1], one.why) for one in left] == [("stem", "nothing merges there")]
    slow = clock(lambda module, shape: 1.0)[1]
    none = worthwhile(network, linear, slow, merge=merge)
    assert none.rewrites == ()
    assert [one.layers[-1] for one in none.declined] == drop


def test_a_merge_in_a_block_that_stays_curved_goes_too() -> None:
    network, x = mobile(), torch.zeros(1, 3, 26, 18)
    merge = partial(merge_linear.find, only=("stage2.1",))
    both = plan(network, x, [partial(ds.find, drop=["stage2.1"]), merge])
    assert [rewrite.kind for rewrite in both.rewrites] == ["linearise", "merge_linear"]
    times = iter(((1.0, 1.0), (1.0, 0.5)))
    kept = worthwhile(network, both, lambda modules, shape: [took(time) for time in next(times)])
    assert kept.rewrites == ()


def test_alike_blocks_are_measured_once_and_savings_are_for_the_search() -> None:
    stage = partial(Inverted, 6, 36, 6, 3, 1)
    network = nn.Sequential(*(module for _ in range(3) for module in (stage(), nn.ReLU())))
    asked, measure = clock(num_convs)
    found = timed(network, plan(network, torch.zeros(1, 6, 9, 14), ["merge_linear"]), measure)
    assert len(asked) == 1
    assert [timing.layers for timing in found] == [("0",), ("2",), ("4",)]
    net, x = mobile(), torch.zeros(1, 3, 26, 18)
    decided = ds.decisions(net, trace(net, x))
    savings = saved_ms(net, decided, x, measure, merge=partial(merge_linear.find, most_macs=100))
    mergeable = [decision.block for decision in decided if decision.mergeable]
    assert savings == dict(zip(mergeable, (1.0, 2.0, 2.0, 2.0), strict=True)), "convolutions less, the price here"


def test_the_real_clock_sees_a_merge_that_pays() -> None:
    block = lived_in(nn.Sequential(Inverted(8, 96, 8, 3, 1), nn.ReLU6()))
    found = plan(block, torch.zeros(1, 8, 64, 48), ["merge_linear"])
    kept = worthwhile(block, found, partial(measure_blocks, runs=30))
    assert [rewrite.kind for rewrite in kept.rewrites] == ["merge_linear"]
    (timing,) = timed(block, found, partial(measure_blocks, runs=30))
    assert 0 < timing.then_ms < timing.now_ms
