r"""Whole residual blocks removed: y = a(x + f(x)) becomes y = a(x), or x where a has been applied to it already.

What narrows a layer saves time only down to what a processor computes at once; a block that is gone saves all of its
own. A block is a module with one input and one output of equal shape, which adds its input to what it computes and does
nothing after that but one activation. Training must follow.

Differs from the paper: which blocks go is weighed with the channels (`allocate`), by the sum of the importances of
what is left inside, not by linear probes.
Source: Chen and Zhao, "Shallowing Deep Networks: Layer-Wise Pruning Based on Feature Representations", IEEE TPAMI
41(12), 2019. Checked against: the network without the block's branch, by hand (tests/compress/test_drop_block.py).
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from edgewright.compress.base import Found, Rewrite, replace, saved_by
from edgewright.compress.wiring import POINTWISE, Step, Wiring
from edgewright.core.errors import BadInput

FUNCTIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "hardswish": nn.Hardswish, "gelu": nn.GELU}
AGAIN = {"relu", "relu6", "hardtanh"}  # done twice they give what they gave once


class Drop(Rewrite):
    """layers: the block.   activation: what stays in its place: a module of it, by name; a function; "" for nothing."""

    kind: Literal["drop_block"] = "drop_block"
    tolerance: float | None = None
    activation: str = ""

    def carry_out(self, model: nn.Module) -> None:
        replace(model, self.layers[0], _remains(model, self.activation))


def _remains(model: nn.Module, activation: str) -> nn.Module:
    if activation in FUNCTIONS:
        return FUNCTIONS[activation]()
    return model.get_submodule(activation) if activation else nn.Identity()


def blocks(model: nn.Module, wiring: Wiring) -> dict[str, str]:
    """The residual blocks that could go, by path, and what of each would stay (see `Drop.activation`)."""
    found: dict[str, tuple[str, str]] = {}
    for path in wiring.by_module:
        ends = _ends(wiring, path) if path and wiring.once(path) is None else None
        if ends is None:
            continue
        addition, activation = ends
        stays = _stays(wiring, path, addition, activation)
        if stays is not None and (addition.name not in found or len(path) < len(found[addition.name][0])):
            found[addition.name] = path, stays
    return dict(found.values())


def _ends(wiring: Wiring, path: str) -> tuple[Step, Step | None] | None:
    """The addition of the input that ends a module, and the activation behind it."""
    sources, results = wiring.edges(path)
    if len(sources) != 1 or len(results) != 1 or not any(step.macs for step in wiring.by_module[path]):
        return None
    (source,), (result,) = sources, results
    last, activation = wiring.steps[result], None
    if last.operator in POINTWISE and last.inputs[0] in wiring.steps:
        activation, last = last, wiring.steps[last.inputs[0]]
    same = last.shape == wiring.shape(source) and last.operator in ("add", "add_") and source in last.inputs
    alone = activation is None or last.readers == (activation.name,)
    return (last, activation) if same and alone and path in last.modules else None


def _stays(wiring: Wiring, path: str, addition: Step, activation: Step | None) -> str | None:
    if activation is None:
        return ""
    (source,), _ = wiring.edges(path)
    operator = activation.operator.rstrip("_")
    if source in wiring.steps and wiring.steps[source].operator.rstrip("_") == operator and operator in AGAIN:
        return ""
    if activation.own.startswith(f"{path}."):
        return activation.own
    return operator if operator in FUNCTIONS else None


def find(model: nn.Module, wiring: Wiring, *, drop: Sequence[str]) -> Found:
    """Drop these blocks, by name. Errors: BadInput for a name that is no residual block."""
    known = blocks(model, wiring)
    unknown = [name for name in drop if name not in known]
    if unknown:
        raise BadInput(f"'{unknown[0]}' is no residual block that could go; there are {', '.join(known) or 'none'}")
    rewrites: list[Rewrite] = []
    for name in drop:
        steps = wiring.by_module[name]
        remains = [_remains(model, known[name])] if known[name] else []
        saves = saved_by(
            [model.get_submodule(name)], remains, sum(step.macs for step in steps), len(steps) - len(remains)
        )
        rewrites.append(Drop(layers=(name,), activation=known[name], saves=saves, note="the whole block"))
    return Found(rewrites=tuple(rewrites))
