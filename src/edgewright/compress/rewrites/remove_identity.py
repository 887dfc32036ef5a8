"""Remove what gives back in use what it reads: dropout, pooling of one pixel, pooling to the size that is there.

Exact. It saves operators, which is time in a runtime that does not drop them itself, and clears the way for merges.

Source: a customary step of every graph optimiser; nothing to cite. Checked against: the network before, bit by bit
(tests/compress/test_remove_identity.py).
"""

from typing import Literal

from torch import nn

from edgewright.compress.base import Declined, Found, Rewrite, Saving, replace
from edgewright.compress.wiring import Step, Wiring

DROPPING = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})
POOLING = frozenset({"avg_pool2d", "max_pool2d"})


class RemoveIdentity(Rewrite):
    """layers: the one module that becomes an identity."""

    kind: Literal["remove_identity"] = "remove_identity"
    tolerance: float | None = 0.0
    saves: Saving = Saving(operators=1)

    def carry_out(self, model: nn.Module) -> None:
        for name in self.layers:
            if next(model.get_submodule(name).parameters(), None) is not None:
                raise TypeError(f"{name} has parameters")
            replace(model, name, nn.Identity())


def find(model: nn.Module, wiring: Wiring) -> Found:
    """All modules that are one such operator."""
    rewrites: list[Rewrite] = []
    declined: list[Declined] = []
    for step in wiring.steps.values():
        if not _changes_nothing(step, wiring):
            continue
        own = step.own
        why = f"{own or 'the network'} does it by hand, not by a module" if _by_hand(model, wiring, step) else None
        why = why or wiring.once(own)
        if why:
            declined.append(Declined(kind="remove_identity", layers=(own or step.name,), why=why))
        else:
            rewrites.append(RemoveIdentity(layers=(own,)))
    return Found(rewrites=tuple(rewrites), declined=tuple(declined))


def _by_hand(model: nn.Module, wiring: Wiring, step: Step) -> bool:
    leaf = not step.own or next(model.get_submodule(step.own).children(), None) is not None
    return leaf or len(wiring.by_module[step.own]) > 1


def _changes_nothing(step: Step, wiring: Wiring) -> bool:
    if len(step.inputs) != 1 or wiring.shape(step.inputs[0]) != step.shape:
        return False
    if step.operator in DROPPING:
        return step.arguments[2] is False
    if step.operator in POOLING:
        return all(side == 1 for side in step.arguments[1])
    return step.operator == "adaptive_avg_pool2d"
