"""The published schemas are those of the code."""

import json
from pathlib import Path

import pytest

from edgewright.core.plan import Plan
from edgewright.core.result import Result

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "value"), [("plan", Plan), ("result", Result)])
def test_the_published_schema_is_the_code_s(name, value):
    published = json.loads((DOCS / f"{name}.schema.json").read_text())
    assert published == value.model_json_schema(), f"write docs/{name}.schema.json again from {value.__name__}"
