import pytest

from edgewright.core.cost import Budget, cost, show
from edgewright.core.errors import BadInput


def test_ceilings_are_in_cost_units():
    budget = Budget(latency_ms=5, size_mb=4, peak_memory_kb=256, macs=6e6)
    assert budget.ceilings() == {"latency": 5, "size": 4 * 1024 * 1024, "peak_memory": 262_144, "macs": 6e6}


def test_no_ceiling_is_refused():
    with pytest.raises(BadInput, match="no budget given"):
        Budget.parse({}, "plan.yaml")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_senseless_ceilings_are_refused(value):
    with pytest.raises(BadInput, match="latency_ms"):
        Budget.parse({"latency_ms": value}, "plan.yaml")


def test_the_nearest_known_key_is_named():
    with pytest.raises(BadInput, match=r"unknown key 'latency'; did you mean 'latency_ms'\?"):
        Budget.parse({"latency": 3}, "plan.yaml")


def test_broken_names_each_ceiling_and_no_other():
    budget = Budget(latency_ms=2, macs=100)
    costs = {"latency": cost("latency", 3, "measured"), "macs": cost("macs", 100, "analytic")}
    assert budget.broken(costs) == ["latency is 3 ms, 1.50 times the ceiling of 2 ms"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency", 0.3123, "0.312 ms"),
        ("size", 2.5 * 2**20, "2.5 MB"),
        ("peak_memory", 262_144, "256 KB"),
        ("macs", 5_900_000, "5.9 M MACs"),
        ("params", 740, "740 parameters"),
    ],
)
def test_show(name, value, text):
    assert show(name, value) == text
