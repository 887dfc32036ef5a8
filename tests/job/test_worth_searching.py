"""A space of which nothing meets the budget is left out of the contest, and that is said."""

from types import SimpleNamespace
from typing import Any

from edgewright.core.cost import Budget, cost
from edgewright.job.design.search import _worth_searching
from edgewright.space.resolve import make_space
from edgewright.task.load import load_task


def test_what_cannot_meet_the_budget_is_left_out_and_said(capsys) -> None:
    spec = load_task("digits").spec
    fits, slow = make_space("mobile", spec), make_space("mobile", spec)

    def milliseconds(architecture: Any) -> float:
        return 2.0 if architecture in drawn_of_slow else 0.5

    drawn_of_slow: list[Any] = []
    for name in ("sample", "smallest", "mutate"):  # whatever the second space gives is slow
        given = getattr(slow, name)

        def noted(*given_to: Any, given: Any = given) -> Any:
            drawn_of_slow.append(given(*given_to))
            return drawn_of_slow[-1]

        setattr(slow, name, noted)
    budget = Budget(latency_ms=1.0)
    ground: Any = SimpleNamespace(
        plan=SimpleNamespace(seed=0, budget=budget),
        members=(fits, slow),
        excess=lambda one: max(0.0, milliseconds(one) - 1.0),
        costs=lambda one: {"latency": cost("latency", milliseconds(one), "table")},
        start=lambda one: SimpleNamespace(source="timm:large") if one in drawn_of_slow else None,
    )
    assert _worth_searching(ground) == [fits]
    told = " ".join("".join(capsys.readouterr()).split())
    assert "timm:large: left out, for at its nearest to the budget" in told and "2" in told
