import numpy as np
import pytest

from edgewright.core.tensors import (
    TensorSpec,
    as_tree,
    ask,
    compact,
    gathered,
    leaves,
    mapped,
    named,
    paired,
    rows,
    scaled,
    sides,
    size_text,
)

ALONE = np.arange(6).reshape(3, 2)
TREE = {"a": ALONE, "b": ALONE[:, :1] * 10}


def test_a_tensor_alone_and_several_by_name_are_walked_alike():
    assert mapped(lambda x: x.sum(), ALONE) == 15
    assert mapped(lambda x: int(x.sum()), TREE) == {"a": 15, "b": 60}
    assert [x.shape for x in leaves(TREE)] == [(3, 2), (3, 1)]
    assert [x.shape for x in leaves(ALONE)] == [(3, 2)]
    assert rows(ALONE) == rows(TREE) == 3
    assert gathered([ALONE, ALONE], np.concatenate).shape == (6, 2)
    assert gathered([TREE, TREE], np.concatenate)["b"].shape == (6, 1)
    assert [(name, one is two) for name, one, two in paired(TREE, TREE)] == [("a", True), ("b", True)]
    assert [name for name, _, _ in paired(ALONE, ALONE)] == [""]


def test_names_come_from_the_specs():
    specs = [TensorSpec(name="b", shape=(1,)), TensorSpec(name="a", shape=(2,))]
    assert list(named(TREE, specs)) == ["b", "a"]
    assert named(ALONE, specs[:1])["b"] is ALONE
    with pytest.raises(KeyError):
        named({"a": ALONE}, specs)
    assert as_tree({"x": ALONE}) is ALONE
    assert as_tree(TREE) == TREE


def test_several_inputs_are_handed_over_by_name():
    assert ask(lambda x: x + 1, 1) == 2
    assert ask(lambda a, b: a - b, {"b": 1, "a": 5}) == 4


def test_sizes():
    assert sides(7) == (7, 7)
    assert sides([4, 9]) == (4, 9)
    assert compact((7, 7)) == 7
    assert compact((4, 9)) == (4, 9)
    assert scaled((49, 10), 0.75, 4, 8) == (36, 8)
    assert size_text((32, 32)) == "32 px"
    assert size_text((49, 10)) == "49 x 10 px"
