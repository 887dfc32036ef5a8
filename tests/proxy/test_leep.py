"""LEEP against its definition, loop by loop, and cases by hand."""

import math

import pytest
import torch

from edgewright.proxy.features import Features
from edgewright.proxy.scores.leep import leep
from edgewright.proxy.scores.nce import nce
from made_features import changed, drawn, example, size, value


def reference(features: Features) -> float:
    theta, y = features.source.softmax(1).tolist(), features.targets.tolist()
    n, total = len(y), 0.0
    for i in range(n):
        expected = 0.0
        for z in range(len(theta[0])):
            joint = sum(theta[j][z] for j in range(n) if y[j] == y[i])
            expected += joint / sum(row[z] for row in theta) * theta[i][z]
        total += math.log(expected) / n
    return total


@pytest.mark.parametrize("features", [example(), drawn(9, 2, 4), drawn(14, 30, 2)], ids=size)
def test_equals_the_definition(features):
    assert value(leep(), features) == pytest.approx(reference(features), rel=1e-9)


def test_equals_the_official_code():
    # thuml/Transfer-Learning-Library c4aa59eb, tllib/ranking/leep.py on these probabilities.
    assert value(leep(), example()) == pytest.approx(-0.9923742625, rel=1e-8)


def test_by_hand():
    labels = torch.tensor([0, 0, 0, 1])
    sure = torch.tensor([[50.0, 0.0], [50.0, 0.0], [50.0, 0.0], [0.0, 50.0]]).double()
    silent = torch.zeros(4, 7).double()
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert value(leep(), Features(sure, sure, labels)) == pytest.approx(0, abs=1e-9)
    assert value(leep(), Features(sure, silent, labels)) == pytest.approx(-entropy)


def test_one_output_is_the_logit_of_the_second_of_two():
    features = drawn(12, 3, 2)
    logit = features.source[:, :1]
    two = torch.cat([torch.zeros_like(logit), logit], 1)
    one, both = (Features(features.values, source, features.targets) for source in (logit, two))
    assert value(leep(), one) == pytest.approx(value(leep(), both), rel=1e-9)
    assert value(nce(), one) == pytest.approx(value(nce(), both), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_never_above_zero_whatever_the_order_of_classes_and_above_its_bound(seed):
    features = drawn(25, 6, 4, seed=seed)
    found = value(leep(), features)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randperm(4, generator=generator)[features.targets] * 3
    source = features.source[:, torch.randperm(7, generator=generator)]
    assert found <= 0
    assert value(leep(), Features(features.values, source, labels)) == pytest.approx(found, rel=1e-9)
    # Property 1 of the paper.
    assert found >= value(nce(), features) + float(features.probabilities.max(1).values.log().mean()) - 1e-12


def test_it_may_be_above_nce_where_answers_are_the_same_but_not_as_sure():
    features = drawn(10, 2, 2)
    source = torch.where(features.targets == 1, 9.0, 0.1).double()[:, None] * torch.tensor([1.0, 0.0]).double()
    found = Features(features.values, source, features.targets)
    assert value(leep(), found) > value(nce(), found)


def test_an_unused_class_of_the_source_does_not_matter():
    features = drawn(20, 3, 3)
    never = torch.cat([features.source, torch.full((20, 2), -torch.inf).double()], 1)
    assert value(leep(), Features(features.values, never, features.targets)) == pytest.approx(value(leep(), features))
    assert math.isfinite(value(leep(), changed(features, targets=torch.zeros(20, dtype=torch.int64))))
