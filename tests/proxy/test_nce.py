"""NCE against its definition, loop by loop."""

import math

import pytest
import torch

from edgewright.proxy.features import Features
from edgewright.proxy.scores.leep import leep
from edgewright.proxy.scores.nce import nce
from made_features import drawn, example, size, value


def reference(features: Features) -> float:
    said, y = features.source.argmax(1).tolist(), features.targets.tolist()
    n, pairs = len(y), list(zip(said, y, strict=True))
    return sum(pairs.count(pair) / n * math.log(pairs.count(pair) / said.count(pair[0])) for pair in set(pairs))


@pytest.mark.parametrize("features", [example(), drawn(9, 2, 4), drawn(30, 3, 2)], ids=size)
def test_equals_the_definition(features):
    assert value(nce(), features) == pytest.approx(reference(features), rel=1e-9)


def test_equals_the_official_code():
    # thuml/Transfer-Learning-Library c4aa59eb, tllib/ranking/nce.py on the largest of these.
    assert value(nce(), example()) == pytest.approx(-0.6711860380, rel=1e-8)


def test_from_the_entropy_of_the_labels_to_none():
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    told = torch.nn.functional.one_hot(torch.tensor([4, 4, 0, 1, 1, 1]), 5).double()
    always = torch.tensor([[3.0, 1.0]]).double().expand(6, 2)
    entropy = -sum(p * math.log(p) for p in (2 / 6, 1 / 6, 3 / 6))
    assert value(nce(), Features(told, told, labels)) == pytest.approx(0, abs=1e-12)
    assert value(nce(), Features(told, always, labels)) == pytest.approx(-entropy)


def test_equals_leep_where_the_source_is_sure():
    features = drawn(20, 3, 3)
    sure = Features(features.values, features.source * 1e6, features.targets)
    assert value(leep(), sure) == pytest.approx(value(nce(), features), rel=1e-6)
