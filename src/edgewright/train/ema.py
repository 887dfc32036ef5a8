"""A running average of the weights: what is evaluated, and what is handed out at the end."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    r"""Exponential moving average of a model's parameters and floating-point buffers (batch norm's statistics).

    e_{t+1} = d_t e_t + (1 - d_t) w_{t+1},   d_t = min(decay, (1 + t) / (10 + t)),   t = updates done, e_0 = w_0

    While the warm-up of the decay holds, the average spans about the last ninth of the training, however short it is:
    a training of 300 steps profits as one of 30,000 does. Whole-number buffers are copied.

    Source: TensorFlow's ExponentialMovingAverage(num_updates); Polyak & Juditsky 1992 for the idea. Checked against the
    closed form in the tests.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        mine, theirs = list(self.model.state_dict().values()), list(model.state_dict(keep_vars=True).values())
        pairs = [(e, w.detach()) for e, w in zip(mine, theirs, strict=True)]
        self._averages = [e for e, _ in pairs if e.is_floating_point()]
        self._weights = [w for _, w in pairs if w.is_floating_point()]
        self._copies = [(e, w) for e, w in pairs if not e.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(decay)(self._averages, self._weights, None)
        for average, weight in self._copies:
            average.copy_(weight)
        self.updates += 1
