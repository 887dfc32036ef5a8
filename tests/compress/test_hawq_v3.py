"""The published allocation problems solved to the published optima; brute force; exact traces."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.compress.bits.hawq_v3 import Allocation, allocate, hessian_traces, penalties
from edgewright.core.errors import BadInput, BudgetInfeasible

CONSTANTS = json.loads((Path(__file__).parent / "hawq_v3.json").read_text())

R18, R50 = "resnet18", "resnet50"
# Bits, objective relative to 4 bits everywhere, size, bit operations, latency. The numbers are as they were handed
# down. So are the strings of twelve problems, but for four (MISPRINTS) that do not belong to the numbers beside them.
PUBLISHED = {
    (R18, "size", 0.25): ("8888888888888844444", -1.189414, 6.641, 86.7, 4.8),
    (R18, "size", 0.5): ("8888888888888884844", -1.233207, 7.266, 89.72, 4.891),
    (R18, "size", 0.75): ("8888888888888488884", -1.274273, 9.234, 95.13, 5.055),
    (R18, "bops", 0.25): ("8884848444444444444", -0.847289, 5.412, 45.76, 3.615),
    (R18, "bops", 0.5): ("8884888848884444444", -1.092024, 5.99, 65.03, 4.234),
    (R18, "bops", 0.75): ("8888888848888484884", -1.227748, 8.039, 84.3, 4.706),
    (R18, "latency", 0.25): ("8884848444444444444", -0.847289, 5.412, 45.76, 3.615),
    (R18, "latency", 0.5): ("8888848848884484844", -1.105039, 6.563, 68.04, 4.22),
    (R18, "latency", 0.75): ("8888888848888484884", -1.227748, 8.039, 84.3, 4.706),
    (R50, "size", 0.25): ("8888888888888888888888884888448448448448444484444844", -0.831387, 14.6, 159.6, 10.12),
    (R50, "size", 0.5): ("8888888888888888888888884888888448888488488488844844", -0.875313, 17.55, 188.5, 10.81),
    (R50, "size", 0.75): ("8888888888888888888888888888888888888888888488848848", -0.894121, 19.91, 217.4, 11.5),
    (R50, "bops", 0.25): ("8488448844848844444484484884444444444444448488844844", -0.757389, 15.25, 101.2, 8.63),
    (R50, "bops", 0.5): ("8888888848848884884484884888448448448448488488848848", -0.849897, 17.27, 145.7, 9.74),
    (R50, "bops", 0.75): ("8888888848888888888884884888888448488488488488888888", -0.882231, 20.57, 187.9, 10.77),
    (R50, "latency", 0.25): ("8888848844848844444484444844444444444448448488844844", -0.768832, 15.08, 105.4, 8.71),
    (R50, "latency", 0.5): ("8888888844848888884884884884448448448448448488848848", -0.851476, 17.1, 146.3, 9.76),
    (R50, "latency", 0.75): ("8888888848848888888884884888888488888488488488888888", -0.883678, 20.92, 190.3, 10.8),
}  # fmt: skip
MISPRINTS = {
    (R18, "bops", 0.75): "8888888848888488884",
    (R18, "latency", 0.75): "8888888848888488884",
    (R50, "size", 0.5): "8888888888888888888888884888888888448888488488844844",
    (R50, "bops", 0.5): "8888888848848884884884484888448448448448488488848848",
}


def problem(net: str) -> tuple[np.ndarray, dict[str, np.ndarray], list[list[int]]]:
    """Penalties and costs at 4 and 8 bits. Bit operations in the published unit: multiply-adds / 64 and / 16."""
    table = {name: np.array(value) for name, value in CONSTANTS[net].items() if name != "ties"}
    omega = table["trace"][:, None] * np.stack([table["error4"], table["error8"]], 1)
    costs = {
        "size": table["weights"][:, None] * [0.5, 1.0],
        "bops": table["macs"][:, None] / [64.0, 16.0],
        "latency": np.stack([table["latency4"], table["latency8"]], 1),
    }
    return omega, costs, CONSTANTS[net]["ties"]


def solve(net: str, constraint: str, ratio: float) -> tuple[Allocation, float]:
    """The optimum under lo + ratio (hi - lo), and its objective relative to 4 bits everywhere."""
    omega, costs, ties = problem(net)
    low, high = costs[constraint].sum(0)
    found = allocate(omega, costs, {constraint: low + ratio * (high - low)}, ties=ties)
    return found, found.penalty - omega[:, 0].sum()


@pytest.mark.parametrize(("net", "constraint", "ratio"), PUBLISHED)
def test_published_optimum(net: str, constraint: str, ratio: float) -> None:
    bits, objective, *costs = PUBLISHED[net, constraint, ratio]
    found, reached = solve(net, constraint, ratio)
    assert reached == pytest.approx(objective, abs=6e-7)
    assert [found.costs[name] for name in ("size", "bops", "latency")] == pytest.approx(costs, rel=7e-4)
    assert "".join(map(str, found.bits)) == bits


@pytest.mark.parametrize(("net", "constraint", "ratio"), MISPRINTS)
def test_misprinted_strings_break_the_limit_or_are_worse(net: str, constraint: str, ratio: float) -> None:
    omega, costs, _ = problem(net)
    pick = np.array([width == "8" for width in MISPRINTS[net, constraint, ratio]]).astype(int)
    rows, (low, high) = np.arange(len(pick)), costs[constraint].sum(0)
    within = costs[constraint][rows, pick].sum() <= low + ratio * (high - low)
    assert not within or omega[rows, pick].sum() > solve(net, constraint, ratio)[0].penalty + 1e-3


def test_brute_force_agrees_on_resnet18() -> None:
    omega, costs, ties = problem("resnet18")
    tied = {max(tie): min(tie) for tie in ties}
    free = [layer for layer in range(19) if layer not in tied]
    choices = np.zeros((2 ** len(free), 19), dtype=int)
    choices[:, free] = (np.arange(len(choices))[:, None] >> np.arange(len(free))) & 1
    for late, early in tied.items():
        choices[:, late] = choices[:, early]
    rows = np.arange(19)
    value = omega[rows, choices].sum(1)
    for name, ratio in (("size", 0.5), ("bops", 0.75), ("latency", 0.75), ("latency", 0.33)):
        used = costs[name][rows, choices].sum(1)
        limit = costs[name].sum(0) @ [1 - ratio, ratio]
        best = value[used <= limit].min()
        found, _ = solve("resnet18", name, ratio)
        assert found.penalty == pytest.approx(best, rel=1e-12)


def test_three_widths_and_two_limits_against_every_choice() -> None:
    random = np.random.default_rng(4)
    omega = -np.sort(-random.random((6, 3)), 1)
    costs = {"size": random.random((6, 1)) * [2, 4, 8], "latency": np.sort(random.random((6, 3)), 1)}
    limits = {"size": costs["size"].sum(0)[1], "latency": costs["latency"].sum(0)[1]}
    best = min(
        omega[np.arange(6), pick].sum()
        for pick in map(list, itertools.product(range(3), repeat=6))
        if pick[1] == pick[4] and all(costs[k][np.arange(6), pick].sum() <= limits[k] for k in limits)
    )
    found = allocate(omega, costs, limits, bits=(2, 4, 8), ties=[(1, 4)])
    assert found.penalty == pytest.approx(best, rel=1e-12)
    assert found.bits[1] == found.bits[4]
    assert all(found.costs[name] <= limits[name] * (1 + 1e-9) for name in limits)


def test_limits_that_nothing_keeps_and_wrong_tables() -> None:
    table = np.ones((3, 2))
    with pytest.raises(BudgetInfeasible, match="no choice of bits keeps size under 2: the least is 3"):
        allocate(table, {"size": table}, {"size": 2})
    with pytest.raises(BadInput, match="size: expected finite numbers of shape"):
        allocate(table, {"size": np.ones((3, 3))}, {"size": 9})
    with pytest.raises(BadInput, match="must be among the costs"):
        allocate(table, {"size": table}, {"bytes": 9})
    with pytest.raises(BadInput, match="layers 0 to 2"):
        allocate(table, {"size": table}, {"size": 9}, ties=[(1, 3)])


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), y)


def test_traces_against_the_exact_hessian() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.7, generator=generator)
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (12,), generator=generator)
    names = ["0", "2"]
    weights = {f"{name}.weight": model.get_parameter(f"{name}.weight").detach() for name in names}

    def of(values: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

    blocks = torch.func.hessian(of)(weights)
    draws = 400
    found = hessian_traces(model, _loss, [(x, y)], names, draws=draws, seed=3)
    whole = sum(block.square().sum().item() for row in blocks.values() for block in row.values())
    for name in names:
        key = f"{name}.weight"
        size = weights[key].numel()
        exact = blocks[key][key].reshape(size, size).trace().item()
        assert abs(found[name] - exact) < 4 * (2 * whole / draws) ** 0.5
    again = hessian_traces(model, _loss, [(x, y)], names, draws=draws, seed=3)
    assert again == found
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_penalties_are_trace_times_squared_error() -> None:
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[7.0, 3.4, -1.6]])
    table = penalties(nn.ModuleDict({"fc": layer}), {"fc": 6.0}, bits=(4, 8))
    assert table[0, 0] == pytest.approx(6 / 3 * (0.4**2 + 0.4**2))
    assert table[0, 1] < table[0, 0] / 50
