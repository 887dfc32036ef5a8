"""Spaces are found by name, made for a task, and unknown names are answered with the choices."""

import random

import pytest

from edgewright.core.errors import BadInput
from edgewright.space.base import Space
from edgewright.space.resolve import make_space, spaces
from edgewright.task.base import TaskSpec

SPEC = TaskSpec(
    name="two",
    source="dataset",
    classes=("a", "b"),
    channels=1,
    resolution=12,
    mean=(0.0,),
    std=(1.0,),
    flip=False,
    num_train=1,
    num_val=0,
    num_test=0,
    digest="",
)


def test_every_space_has_a_name_a_source_and_a_summary():
    for name, space in spaces().items():
        assert issubclass(space, Space)
        assert space.name == name
        assert space.source and space.summary


@pytest.mark.parametrize("name", list(spaces()))
def test_a_space_is_made_for_its_task(name):
    space = make_space(name, SPEC)
    graph = space.graph(space.sample(random.Random(0)))
    assert graph.input_shape[0] == 1 and graph.output_shape == (2,)


def test_unknown_names_are_answered_with_the_choices():
    with pytest.raises(BadInput, match="unknown space 'moble'; choose from mobile"):
        make_space("moble", SPEC)
