"""What every kind of task obeys, whatever it is."""

import pytest
import torch

from edgewright.core.tensors import as_tree, gathered, leaves, mapped
from edgewright.task.kinds.resolve import kinds, make_kind

SAMPLES = 6


FACTS = {
    "several": {
        "parts": [
            {"name": "tint", "kind": "classification", "names": ["a", "b"]},
            {"name": "shape", "kind": "classification", "names": ["c", "d", "e"], "metric": "balanced_accuracy"},
        ]
    }
}


def made(name: str):
    """A kind with outputs and targets that fit it; targets are numbers below 2, which all kinds know."""
    generator = torch.Generator().manual_seed(1)
    kind = make_kind(name, ("a", "b", "c"), FACTS.get(name, {}))
    specs = kind.outputs((8, 6))
    outputs = {
        spec.name: torch.randn(SAMPLES, *(4 if side is None else side for side in spec.shape), generator=generator)
        for spec in specs
    }
    names = [spec.name.split(".")[0] for spec in specs]
    sides = (8, 6) if kind.aligned else ()
    targets = {one: torch.randint(0, 2, (SAMPLES, *sides), generator=generator) for one in names}
    return kind, as_tree(outputs), as_tree(targets)


@pytest.mark.parametrize("name", kinds())
def test_laws_of_a_kind(name: str) -> None:
    kind, outputs, targets = made(name)
    mapped(lambda y: y.requires_grad_(), outputs)
    loss = kind.loss(outputs, targets)
    loss.backward()
    assert loss.isfinite() and loss.ndim == 0
    for y in leaves(outputs):
        assert y.grad is not None and y.grad.isfinite().all() and y.grad.abs().sum() > 0
    outputs = mapped(lambda y: y.detach(), outputs)
    twice = kind.loss(gathered([outputs, outputs], torch.cat), gathered([targets, targets], torch.cat))
    torch.testing.assert_close(twice, loss.detach(), rtol=0.02, atol=1e-3)  # a mean, not a sum
    assert float(kind.distil(outputs, outputs, 2.0)) == pytest.approx(0, abs=1e-5)
    assert float(kind.distil(outputs, mapped(lambda y: y.flip(0), outputs), 2.0)) > 0
    assert kind.same(outputs, outputs).value == 100
    assert kind.same(outputs, mapped(lambda y: -y, outputs)).value < 100
    names = [metric.name for metric in kind.metrics]
    assert len(set(names)) == len(names)
    assert set(kind.guess(targets)) <= set(names)
    assert kind.decides(targets) in names
    assert len(leaves(kind.answers(outputs))[0]) == SAMPLES
    with pytest.raises(StopIteration):
        kind.metric("no such figure")
