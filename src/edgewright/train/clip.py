"""A step's gradient cut to a multiple of its usual norm.

    |g| <= min(factor m, most),     m <- 0.9 m + 0.1 |g| as it was cut     (m: the first step's norm to begin with)

Norms differ by orders of magnitude from network to network and from task to task, so a fixed ceiling either never cuts
or cuts every step, and then the learning rate no longer says how large a step is. This one cuts what is unusual. `most`
is for the first steps on data that is all new to a network, when no usual norm is known yet.

Source: this project; a running form of Seetharaman et al., "AutoClip", MLSP 2020, arXiv:2007.14469, which takes a
percentile of all norms so far. Checked against: the equation (tests/train/test_clip.py).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

SLOW = 0.9


@dataclass
class RunningClip:
    """usual: the running norm, 0 before the first step; all there is to keep of a training that is to go on."""

    factor: float
    most: float = math.inf
    usual: float = 0.0

    def __call__(self, parameters: Iterable[Tensor]) -> float:
        """Cut the gradients of `parameters` in place; their norm as it was."""
        most = min(self.factor * self.usual or math.inf, self.most)
        norm = float(nn.utils.clip_grad_norm_(parameters, most))
        if math.isfinite(norm):
            taken = min(norm, most)
            self.usual = SLOW * self.usual + (1 - SLOW) * taken if self.usual else taken
        return norm
