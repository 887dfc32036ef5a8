"""Which calls are live."""

import torch
from torch import nn

from edgewright.proxy.calls import left_as_it_was, run_calls


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.unread, self.of_zeros, self.after_zeros = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.norm, self.act = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        self.unread(x)
        zeros = self.after_zeros(self.of_zeros(torch.zeros_like(x)))
        y = self.norm(x)
        y += zeros
        return self.head(self.act(y).mean((2, 3)))


def test_live_is_from_the_input_to_the_logits(batches):
    model = Net()
    with left_as_it_was(model):
        calls = run_calls(model, batches(1)[0][0], live=True)
        plain = run_calls(model, batches(1)[0][0], live=False)
    assert {call.name for call in calls if not call.live} == {"unread", "of_zeros", "after_zeros"}
    assert {call.name for call in calls if call.live} == {"stem", "norm", "act", "head"}
    shapes = [(call.name, call.input_shape, call.output_shape) for call in calls]
    assert [(call.name, call.input_shape, call.output_shape) for call in plain] == shapes
    assert all(call.live is None for call in plain)


def test_a_network_that_does_not_see_its_input_is_dead(batches):
    class Blind(Net):
        def forward(self, x):
            return self.head(torch.ones(len(x), 4)) + 0 * super().forward(torch.ones_like(x))

    model = Blind()
    with left_as_it_was(model):
        assert not any(call.live for call in run_calls(model, batches(1)[0][0], live=True))
