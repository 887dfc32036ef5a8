"""Every importance against loops over units, on several networks; and what all of them must keep to."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compress.networks import images
from compress.prunable import networks
from edgewright.compress.prune.asked import IMPORTANCES
from edgewright.compress.prune.groups import Group, dependencies
from edgewright.compress.prune.importance import Batches, cross_entropy, gradients
from edgewright.compress.prune.importances.network_slimming import scale_penalty
from edgewright.compress.prune.importances.received import _passed
from edgewright.compress.wiring import trace
from edgewright.core.errors import BadInput

NAMES = ["residual", "depthwise", "joined", "transformer"]


def squared_outputs(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    return (model(x) - targets).square().mean()


def setting(name: str) -> tuple[nn.Module, tuple[Group, ...], list[tuple[Tensor, Tensor]]]:
    model, shape = networks()[name]
    model = model.double()
    found = dependencies(model, trace(model, torch.zeros(shape, dtype=torch.float64)))
    batches = []
    for seed in (1, 2):
        x = images(*shape, seed=seed, dtype=torch.float64)
        with torch.no_grad():
            batches.append((x, model(x) + images(*model(x).shape, seed=9 + seed, dtype=torch.float64)))
    return model, found.groups, batches


def positions(group: Group, unit: int) -> list[tuple[str, int, int]]:
    return [
        (member.tensor, member.dim, int(position))
        for member in group.members
        for position in member.index[unit].tolist()
    ]


def naive_gradients(model: nn.Module, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    grads = torch.autograd.grad(squared_outputs(model, x, targets), list(parameters.values()))
    return dict(zip(parameters, grads, strict=True))


def naive_magnitude(model: nn.Module, group: Group, batches: Batches) -> list[float]:
    weights = dict(model.named_parameters())
    norms = [
        sum(float((weights[t].detach().select(d, p) ** 2).sum()) for t, d, p in positions(group, unit) if t in weights)
        ** 0.5
        for unit in range(group.units)
    ]
    return [norm / (sum(norms) / len(norms)) for norm in norms]


def naive_taylor(model: nn.Module, group: Group, batches: Batches) -> list[float]:
    scores = [0.0] * group.units
    for x, targets in batches:
        grads, weights = naive_gradients(model, x, targets), dict(model.named_parameters())
        for unit in range(group.units):
            for t, d, p in positions(group, unit):
                if t in weights:
                    scores[unit] += float(((weights[t] * grads[t]).select(d, p) ** 2).sum()) / 2
    return scores


def naive_nvit(model: nn.Module, group: Group, batches: Batches) -> list[float]:
    scores = [0.0] * group.units
    for x, targets in batches:
        grads, weights = naive_gradients(model, x, targets), dict(model.named_parameters())
        for unit in range(group.units):
            found = positions(group, unit)
            whole = sum(float((weights[t] * grads[t]).select(d, p).sum()) for t, d, p in found if t in weights)
            scores[unit] += whole**2 / 2
    return scores


def naive_slimming(model: nn.Module, group: Group, batches: Batches) -> list[float]:
    scales = {f"{n}.weight": m.weight for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    scores = []
    for unit in range(group.units):
        found = [abs(float(scales[t][p])) for t, _, p in positions(group, unit) if t in scales]
        scores.append(sum(found) / len(found) if found else float("inf"))
    return scores


def naive_fpgm(model: nn.Module, group: Group, batches: Batches) -> list[float]:
    weights, makers = dict(model.named_parameters()), {m.tensor for m in group.members if m.role == "makes"}
    rows = [
        torch.cat([weights[t].select(d, p).flatten() for t, d, p in positions(group, u) if t in makers and d == 0])
        for u in range(group.units)
    ]
    sums = [sum(float((a - b).norm()) for b in rows) for a in rows]
    return [value / (sum(sums) / len(sums)) for value in sums]


def naive_received(model: nn.Module, group: Group, batches: Batches) -> list[float]:
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    readers = [m for m in group.members if m.role == "reads" and m.tensor in weights]
    scaled = [m for m in group.members if m.owner in norms and m.tensor.endswith(".weight")]
    alone = len({m.tensor for m in group.members if m.role == "makes" and m.tensor.endswith(".weight")}) == 1
    found = []
    for unit in range(group.units):
        columns = sum(
            float((weights[m.tensor].select(m.dim, int(p)) ** 2).sum()) for m in readers for p in m.index[unit]
        )
        moments = []
        for member in scaled:
            total = 0.0
            for place in member.index[unit]:
                deviation = abs(float(weights[member.tensor][int(place)]))
                mean = float(weights[f"{member.owner}.bias"][int(place)])
                t = mean / deviation
                below, density = 0.5 * math.erfc(-t / math.sqrt(2)), math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
                total += (mean**2 + deviation**2) * below + mean * deviation * density
            moments.append(total)
        given = math.prod(moments) if alone or not scaled else sum(moments)
        found.append((columns if readers else 1.0) * given)
    return [value / (sum(found) / len(found)) for value in found]


NAIVE: dict[str, Callable[[nn.Module, Group, Batches], list[float]]] = {
    "magnitude": naive_magnitude,
    "taylor": naive_taylor,
    "nvit": naive_nvit,
    "network_slimming": naive_slimming,
    "fpgm": naive_fpgm,
    "received": naive_received,
}


def test_all_have_a_reference() -> None:
    assert set(NAIVE) == set(IMPORTANCES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("importance", IMPORTANCES)
def test_equals_loops_over_units_and_leaves_no_trace(importance: str, name: str) -> None:
    model, groups, batches = setting(name)
    model.train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    scores = IMPORTANCES[importance](model, groups, batches, squared_outputs)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    model.eval()
    assert [len(score) for score in scores] == [group.units for group in groups]
    for score, group in zip(scores, groups, strict=True):
        assert score.dtype == torch.float64
        wanted = torch.tensor(NAIVE[importance](model, group, batches), dtype=torch.float64)
        torch.testing.assert_close(score, wanted, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("importance", ["taylor", "nvit", "magnitude", "received"])
def test_a_unit_that_counts_for_nothing_scores_least(importance: str) -> None:
    model, groups, batches = setting("depthwise")
    group = next(group for group in groups if group.units == 48)
    tensors = dict(model.named_parameters())
    for member in group.members:
        if member.tensor in tensors:
            tensors[member.tensor].data.index_fill_(member.dim, torch.tensor(member.index[7]), 0)
    scores = IMPORTANCES[importance](model, [group], batches, squared_outputs)[0]
    assert scores[7] == 0 == scores.min()
    assert (scores > 0).sum() > 30


def test_first_order_says_what_removing_does_to_the_loss() -> None:
    """Finite differences: the loss with the readers' columns of a unit scaled by 1 - h."""
    model, groups, batches = setting("joined")
    group, (x, targets) = groups[0], batches[0]
    reads = [member for member in group.members if member.role == "reads"]
    tensors, h = dict(model.named_parameters()), 1e-6
    (gradient,) = [dict(one) for one in gradients(model, [(x, targets)], squared_outputs)]
    for unit in (0, 3):
        says = sum(
            float((member.rows(tensors[member.tensor] * gradient[member.tensor]))[unit].sum()) for member in reads
        )
        values = []
        for sign in (1, -1):
            for member in reads:
                tensors[member.tensor].data[:, member.index[unit]] *= 1 - sign * h
            with torch.no_grad():
                values.append(float(squared_outputs(model, x, targets)))
            for member in reads:
                tensors[member.tensor].data[:, member.index[unit]] /= 1 - sign * h
        assert -(values[0] - values[1]) / (2 * h) == pytest.approx(says, rel=1e-4)


def test_what_a_norm_lets_through_is_what_samples_say() -> None:
    scale, shift = torch.tensor([1.0, 0.5, -2.0, 1.0]).double(), torch.tensor([0.0, 1.5, 0.7, -2.0]).double()
    z = shift + scale * torch.randn(400_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(_passed(scale, shift), z.relu().square().mean(0), rtol=0.03, atol=1e-3)
    assert _passed(torch.zeros(1).double(), -torch.ones(1).double()).item() == pytest.approx(0, abs=1e-9)


def test_penalty_is_the_sum_of_the_scales() -> None:
    model, _, _ = setting("residual")
    wanted = sum(m.weight.abs().sum() for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert scale_penalty(model).item() == pytest.approx(float(wanted))


def test_faults_are_one_sentence() -> None:
    model, groups, _ = setting("residual")
    with pytest.raises(BadInput, match="needs batches"):
        IMPORTANCES["taylor"](model, groups, [], cross_entropy)
    bad = [(torch.full((1, 3, 9, 12), float("nan"), dtype=torch.float64), torch.zeros(1, dtype=torch.long))]
    with pytest.raises(BadInput, match="batch 1 is nan"):
        IMPORTANCES["nvit"](model, groups, bad, cross_entropy)
