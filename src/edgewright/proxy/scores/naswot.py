"""NASWOT: how differently the samples of a batch switch the ReLUs."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgewright.proxy.base import Evidence, Proxy, Seen, Subject

_RELU = (nn.ReLU, nn.ReLU6, nn.LeakyReLU)
_CHUNK = 1 << 20  # units whose sum of signs float32 still holds exactly


def naswot() -> Proxy:
    r"""Log-determinant of the kernel of the ReLUs' codes.

        S = log | det K |,   K_ij = number of units that are on for both samples or off for both
          = ( D + s_i . s_j ) / 2        s in {+1, -1}^D: the code of a sample, D the number of units

    Unit: one channel and pixel of one call of a ReLU, ReLU6 or LeakyReLU module that is live (its output depends on the
    input and reaches the logits; the official code finds the same ones by a backward pass). Model's own weights,
    training mode, no labels; higher is better; mean over the batches. The survey's log-det is the same score.
    Samples with equal codes make K singular: the worst value.
    Undefined without such modules (ReLUs written as functions are not seen). Cost: one forward pass and one sample's
    shapes; keeps K, (N, N): codes are added up layer by layer and let go.
    Source: Mellor et al., "Neural Architecture Search without Training", ICML 2021, arXiv:2006.04647. Checked against:
    K counted in Python from stored activations, and the numbers of ZiCo's and of the survey's code.
    """
    return Proxy(
        name="naswot",
        source="Mellor et al., NAS without Training, ICML 2021, arXiv:2006.04647",
        summary="log-determinant of the kernel of ReLU codes",
        needs=frozenset({"activations", "live"}),
        init=_init,
        watch=_add_codes,
        modules=_RELU,
        update=_close_batch,
        finish=lambda state: sum(state.values) / len(state.values),
        undefined=_without_relu,
    )


@dataclass
class _State:
    live: frozenset[str]
    signs: Tensor | None = None  # sum over units of s_i s_j
    units: int = 0
    values: list[float] = field(default_factory=list)


def _without_relu(model: nn.Module) -> str:
    if any(isinstance(module, _RELU) for module in model.modules()):
        return ""
    return "NASWOT reads ReLU modules, and this network has none"


def _init(subject: Subject) -> _State:
    return _State(frozenset(call.name for call in subject.ran.calls if call.live))


def _add_codes(state: _State, seen: Seen) -> _State:
    if seen.name in state.live:
        on = (seen.value > 0).flatten(1)
        for part in on.split(_CHUNK, 1):
            signs = part.to(torch.float32).mul_(2).sub_(1)
            product = (signs @ signs.T).double()
            state.signs = product if state.signs is None else state.signs + product
        state.units += on.shape[1]
    return state


def _close_batch(state: _State, evidence: Evidence) -> _State:
    kernel = None if state.signs is None else (state.signs + state.units) / 2
    # Without a ReLU on a way from input to output there is no kernel.
    state.values.append(math.nan if kernel is None else float(torch.linalg.slogdet(kernel)[1]))
    state.signs, state.units = None, 0
    return state
