import json
import math

import pytest

from edgewright.core.cost import Budget, cost
from edgewright.core.data import from_record, to_json, to_record
from edgewright.core.errors import BadInput
from edgewright.core.plan import Plan
from edgewright.core.study import Study


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget(latency=3), "unknown key 'latency'; did you mean 'latency_ms'?"),
        (lambda: Budget(macs=-1), "'macs': Input should be greater than 0 (got -1)"),
        (lambda: Budget(), "no budget given"),
        (lambda: Plan(task="digits", budget=Budget(macs=1), epoch=3), "unknown key 'epoch'; did you mean 'epochs'?"),
        (lambda: Plan(task="digits", budget={"latency": 1}), "unknown key 'budget.latency'; did you mean 'latency_ms'"),
    ],
)
def test_a_wrong_word_from_python_is_one_sentence(make, words):
    with pytest.raises(BadInput) as refused:
        make()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def strictly(text: str):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_is_strict_and_keeps_what_is_not_finite():
    value = {"a": [1.5, math.inf, -math.inf], "b": {"c": 2, "d": "text"}}
    text = to_record({**value, "nan": math.nan})
    strictly(text)
    assert text == to_json({**value, "nan": math.nan})
    again = from_record(text)
    assert math.isnan(again.pop("nan"))
    assert again == value


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_class_may_be_named_as_a_number_is(word, tmp_path):
    value = {"classes": [word, f"'{word}", f"''{word}", f"{word}'", "'", "''"], word: {"name": word}}
    assert from_record(to_record(value)) == value
    assert json.loads(to_json(value)) == value  # what others read stays as it is named
    with Study(tmp_path / "study.db") as study:
        study.note("task", value)
        study.record_epoch("a", "rung-0", 0, value)
        assert (study.read_note("task"), study.epochs("a", "rung-0")) == (value, [value])


def test_values_are_strict_json_too():
    endless = cost("latency", math.inf, "table")
    assert strictly(endless.to_json())["value"] == "Infinity"
    assert type(endless).model_validate_json(endless.to_json()) == endless
