"""Zen-score: how much a network with Gaussian weights moves when its Gaussian input moves a little."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgewright.proxy import probe
from edgewright.proxy.base import Evidence, Proxy

_STEP = 0.01
_AFTER = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Dropout, nn.Dropout2d)


def zen(*, compat: bool = False) -> Proxy:
    r"""Expected Gaussian complexity of the network's map, with the scale that batch norm takes away put back.

        S = log E_{x,e} || f(x) - f(x + 0.01 e) ||_1  +  sum_k log sqrt( mean_c var_kc )

    x, e: standard normal, of the batch's shape (B, C, H, W); f: the last feature map before the head's pooling, of the
    network with weights from N(0, 1), biases 0, norms the identity, in training mode; the norm is summed over a
    sample's map and averaged over samples; var_kc: variance over x's batch of channel c at the input of batch norm k.
    Mean over the batches; no labels, and of the inputs only their shape. No units; higher is better.

    Args:
        compat: the official code's variance: batch norm's running one after both passes, which starts at what the model
            holds (1 in a new one) and has moved by the momentum, 0.1, twice. It is 0.81 + 0.19 var and not var, so the
            sum is drawn to 0.

    Undefined without batch norm: nothing says how large the features were.
    Cost: two forward passes per batch, which both forms share, no gradients; keeps two feature maps.
    Differs from the paper: f is found as the last output of a module with four axes that is neither pooling nor
    dropout. The official run averages 32 draws of 16 images; here each batch is one draw.
    Source: Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Deep Image Recognition", ICCV 2021,
    arXiv:2102.01063, algorithm 1. Checked against: the definition written out naively; compat: the official code's
    number.
    """

    def update(state: _State, evidence: Evidence) -> _State:
        return _State(state.buffers, (*state.values, _both(evidence, state.buffers)[int(compat)]))

    return Proxy(
        name="zen_compat" if compat else "zen",
        source="Lin et al., Zen-NAS, ICCV 2021, arXiv:2102.01063" + (" (the official code's variance)" * compat),
        summary="change of a Gaussian network's features with its input, batch norms' scales put back",
        needs=frozenset({"inputs", "weights"}),
        init=lambda subject: _State(probe.copied_buffers(subject.model)),  # before any other proxy's pass moves them
        update=update,
        finish=lambda state: sum(state.values) / len(state.values),
        undefined=_without_batch_norm,
    )


def _without_batch_norm(model: nn.Module) -> str:
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return ""
    return "Zen-score needs batch norm, and this network has none"


@dataclass(frozen=True)
class _State:
    buffers: dict[str, Tensor]
    values: tuple[float, ...] = ()


def _both(evidence: Evidence, first: dict[str, Tensor]) -> tuple[float, float]:
    """The score, and the official code's; one draw serves whoever asks."""
    if "zen" not in evidence.memo:
        evidence.memo["zen"] = _one_draw(evidence, first)
    return evidence.memo["zen"]


@torch.no_grad()
def _one_draw(evidence: Evidence, first: dict[str, Tensor]) -> tuple[float, float]:
    generator = evidence.generator("zen")
    parameters = probe.redrawn(evidence.model, generator)
    x = probe.noise(evidence, generator)
    moved = x + _STEP * probe.noise(evidence, generator)
    buffers = {name: buffer.clone() for name, buffer in first.items()}
    variances: list[Tensor] = []
    last: list[Tensor] = []

    def see_map(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if output.ndim == 4 and not isinstance(module, _AFTER):
            last[:] = [output]

    def see_first(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        see_map(name, module, given, output)
        if isinstance(module, nn.BatchNorm2d):
            variances.append(given.var((0, 2, 3), correction=0).mean())

    maps = []
    for inputs, see in ((x, see_first), (moved, see_map)):
        probe.run(evidence, inputs, see, parameters=parameters, buffers=buffers)
        if not last:
            return math.nan, math.nan
        maps.append(last.pop())
    change = float((maps[0] - maps[1]).abs().sum((1, 2, 3)).mean().log())
    running = [buffers[f"{name}.running_var"].mean() for name in _tracked(evidence.model)]
    return change + _log_scales(variances), change + _log_scales(running)


def _log_scales(variances: list[Tensor]) -> float:
    return sum(0.5 * float(variance.log()) for variance in variances)


def _tracked(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and m.running_var is not None]
