"""What every kind of task obeys, whatever it is."""

import pytest
import torch

from edgewright.core.tensors import gathered, leaves, mapped
from edgewright.task.kinds.resolve import kinds, make_kind

SAMPLES = 6


def made(name: str):
    """A kind with outputs and targets that fit it."""
    generator = torch.Generator().manual_seed(1)
    kind = make_kind(name, ("a", "b", "c"), {})
    (spec,) = kind.outputs((8, 6))
    shape = [4 if side is None else side for side in spec.shape]
    outputs = torch.randn(SAMPLES, *shape, generator=generator)
    targets = torch.randint(0, 3, (SAMPLES, *((8, 6) if kind.aligned else ())), generator=generator)
    return kind, outputs, targets


@pytest.mark.parametrize("name", kinds())
def test_laws_of_a_kind(name: str) -> None:
    kind, outputs, targets = made(name)
    outputs.requires_grad_()
    loss = kind.loss(outputs, targets)
    loss.backward()
    assert loss.isfinite() and loss.ndim == 0
    assert outputs.grad is not None and outputs.grad.isfinite().all() and outputs.grad.abs().sum() > 0
    outputs = outputs.detach()
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
