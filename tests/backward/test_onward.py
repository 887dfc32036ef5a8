"""The exact gradient goes on, the method's own stays; nothing more is kept."""

import pytest
import torch
from torch import nn

from edgewright.backward.account import measure_kept, predict_kept, total
from edgewright.backward.base import Rule, swapped
from edgewright.backward.rules.gradient_filter import GradientFilter
from edgewright.backward.rules.onward import ExactOnward
from edgewright.backward.rules.walsh import Walsh
from edgewright.backward.survey import survey
from edgewright.core.errors import BadInput

CASES = [
    (GradientFilter(2), nn.Conv2d(6, 4, 3, stride=2, padding=1), (2, 6, 9, 14)),
    (GradientFilter(4), nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False), (2, 6, 9, 8)),
    (Walsh(4), nn.Conv2d(6, 9, 1), (2, 6, 9, 14)),
    (Walsh(2), nn.Linear(6, 9), (2, 16, 6)),
]


@pytest.mark.parametrize(("inner", "layer", "shape"), CASES)
def test_input_gradients_are_autograds_and_weight_gradients_the_methods(
    inner: Rule, layer: nn.Module, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5), requires_grad=True)
    model = nn.Sequential(layer)
    probe = torch.randn(model(x).shape, generator=torch.Generator().manual_seed(6))
    wanted = [x, *layer.parameters()]

    def gradients(rules: dict[str, Rule]) -> tuple[torch.Tensor, ...]:
        with swapped(model, rules):
            return torch.autograd.grad(model(x), wanted, probe)

    exact, own, both = gradients({}), gradients({"0": inner}), gradients({"0": ExactOnward(inner)})
    torch.testing.assert_close(both[0], exact[0], rtol=1e-4, atol=1e-5)
    assert (own[0] - exact[0]).norm() > 0.1 * exact[0].norm()  # the method's own is another
    for found, expected in zip(both[1:], own[1:], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("inner", "layer", "shape"), CASES)
def test_it_keeps_what_the_method_keeps_and_says_so(inner: Rule, layer: nn.Module, shape: tuple[int, ...]) -> None:
    model, x = nn.Sequential(layer), torch.zeros(shape, requires_grad=True)
    call = survey(model, x)[0].calls[0]
    rule, needs = ExactOnward(inner), (True, True, layer.bias is not None)
    with swapped(model, {"0": rule}):
        kept = total(measure_kept(model, x))
        assert kept == total(predict_kept(model, x)) == rule.stored_bytes(call, needs)
    with swapped(model, {"0": inner}):
        assert kept == total(measure_kept(model, x))
    assert rule.macs(call, needs) == call.macs() + inner.macs(call, (False, *needs[1:]))


def test_what_the_method_refuses_is_refused() -> None:
    with (
        swapped(model := nn.Sequential(nn.Conv2d(3, 4, 3)), {"0": ExactOnward(Walsh(4))}),
        pytest.raises(BadInput, match="'wht' of a conv layer"),
    ):
        model(torch.zeros(1, 3, 8, 8))
