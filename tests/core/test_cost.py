import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.core.cost import BYTES, KINDS, Budget, amount, as_fields, cost, figures, show
from edgewright.core.errors import BadInput


def test_ceilings_are_in_cost_units():
    budget = Budget(latency_ms=5, size_mb=4, peak_memory_kb=256, macs=6e6)
    assert budget.ceilings() == {"latency": 5, "size": 4 * 1024 * 1024, "peak_memory": 262_144, "macs": 6e6}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_a_cost_is_a_row_and_everything_follows_from_it(name, kind):
    """A field of the budget, back and forth, in the units of both; its option's help; its sentence."""
    budget = Budget.parse({kind.field: 3.0}, "plan.yaml")
    assert budget.ceilings() == {name: 3.0 * kind.per_field}
    assert as_fields(budget.ceilings()) == {kind.field: 3.0}
    assert Budget.model_fields[kind.field].description == f"Ceiling: {kind.ceiling}."
    (sentence,) = budget.broken({name: cost(name, 6.0 * kind.per_field, "law")})
    assert sentence.startswith(f"{name.replace('_', ' ')} is ") and "2.00 times the ceiling" in sentence


def test_of_two_ceilings_on_one_cost_the_lower_holds():
    within = Budget(energy_mj=3, area_mm2=7).within({"energy": 2.0, "size": 2**20, "area": 9.0})
    assert within == Budget(energy_mj=2, area_mm2=7, size_mb=1)


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
        ("latency", 1234.5, "1.23 s"),
        ("latency", 999.7, "1 s"),
        ("latency", 0.00012, "0.00012 ms"),
        ("latency", math.inf, "inf ms"),
        ("macs", 999_900, "1 M MACs"),
        ("macs", 0, "0 MACs"),
        ("params", 3.2e12, "3.2 T parameters"),
        ("size", 1540 * 2**20, "1.5 GB"),
        ("size", 2**20 - 1, "1 MB"),
        ("peak_memory", 441.23 * 2**10, "441.2 KB"),
        ("size", 3e6 * 2**30, "3,000,000 GB"),
        ("energy", 0.0352, "35.2 µJ"),
        ("energy", 1234.5, "1.23 J"),
        ("area", 12.5, "12.5 mm²"),
    ],
)
def test_show(name, value, text):
    assert show(name, value) == text


@given(st.sampled_from(sorted(KINDS)), st.floats(1e-4, 1e18) | st.integers(1, 10**18))
def test_any_cost_reads_as_a_person_writes_it(name, value):
    """No exponent, no zeros for show, the value within rounding, never 1,000 where there is a larger unit."""
    number, _, unit = amount(name, value).partition(" ")
    scale = {unit: size for size, unit, _ in KINDS[name].scale}
    assert "e" not in number and not (number.endswith("0") and "." in number)
    read = float(number.replace(",", ""))
    assert read * scale[unit] == pytest.approx(value, rel=5.1e-3)
    largest = max(scale.values())
    assert scale[unit] == largest or read < (1024 if KINDS[name].scale is BYTES else 1000)


@given(st.floats(-1e18, 1e18).filter(lambda value: value == 0 or abs(value) > 1e-9), st.integers(1, 8))
def test_figures_round_and_nothing_else(value, count):
    text = figures(value, count)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.51 * 10.0 ** (1 - count))
