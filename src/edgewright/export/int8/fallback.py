"""Which layers suffer most from int8, and how few of them must stay in float to keep the accuracy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from edgewright.core.progress import progress
from edgewright.export.int8.equalise import equalise
from edgewright.export.int8.quantise import (
    Int8Types,
    Ranges,
    best_ranges,
    layers,
    prepare,
    quantise,
    relative_error,
)
from edgewright.export.running import Sample, outputs

JUDGED_ON = 16  # samples by which a layer's damage is told
Drop = Callable[[onnx.ModelProto], float]


@dataclass(frozen=True)
class Quantised:
    """An int8 network. calibrator: which was best.   in_float: layers that were left.   drop: points lost, as told.
    evened: whether channels were equalised first.   made_from: the float network, prepared, to the tensor.   damage: of
    each layer (see `sensitivity`), where layers had to be judged."""

    model: onnx.ModelProto
    calibrator: str
    types: Int8Types
    in_float: tuple[str, ...]
    layers: int
    drop: float
    evened: bool = False
    made_from: onnx.ModelProto | None = None
    damage: Mapping[str, float] | None = None

    def note(self) -> str:
        """In words: types, calibrator, and how many layers stayed in float."""
        kept = f", {len(self.in_float)} of {self.layers} layers in float" if self.in_float else ""
        evened = ", channels evened" if self.evened else ""
        return f"{self.types.text()}, {self.calibrator} ranges{evened}{kept}"

    def record(self) -> dict[str, Any]:
        """How it was made, for the evidence. damage: relative squared error of the outputs when that layer alone is in
        int8, which is why the worst were left; None where all could stay."""
        return {
            "types": self.types.text(),
            "calibrator": self.calibrator,
            "channels_evened": self.evened,
            "layers": self.layers,
            "in_float": list(self.in_float),
            "damage": None if self.damage is None else dict(self.damage),
        }


def quantise_within(
    model: onnx.ModelProto, calibration: Sequence[Sample], types: Int8Types, drop: Drop, max_drop: float
) -> Quantised:
    """Everything in int8 with the best calibrator; where that loses too much, channels are evened between layers (see
    `equalise`), and where that is not enough, the worst layers go back to float.

    Layers are ordered by `sensitivity`; the 1, 2, 4, ... worst go back until drop <= max_drop, then the gap is halved
    down to the fewest that keep it. Where nothing keeps it, all layers being float again, that network is handed back
    with its drop, for the caller to refuse.

    Args:
        calibration: as the network takes them, batch 1 each.
        drop: points that a network loses against its source (see `gates.py`).
    Differs from NNCF's accuracy-controlled quantisation, which orders by the accuracy each layer gives back one by one:
        here by each layer's own damage, so that the accuracy is told about 2 log2 n times.
    """
    plain = _Attempt(prepare(model), calibration, types, drop)
    if plain.whole.drop <= max_drop or not plain.layers:
        return plain.whole
    even = equalise(plain.prepared, calibration)
    best = plain
    if even is not None:
        other = _Attempt(even, calibration, types, drop, evened=True)
        if other.whole.drop <= max_drop:
            return other.whole
        best = min(plain, other, key=lambda attempt: attempt.whole.drop)
    damage = sensitivity(best.prepared, best.covered, types, calibration[:JUDGED_ON])
    worst = sorted(best.layers, key=lambda name: -damage[name])
    return replace(_least(lambda count: best.with_float(worst[:count]), len(worst), max_drop), damage=damage)


class _Attempt:
    """One float network with its ranges; `whole`: all of it in int8."""

    def __init__(
        self,
        prepared: onnx.ModelProto,
        calibration: Sequence[Sample],
        types: Int8Types,
        drop: Drop,
        *,
        evened: bool = False,
    ) -> None:
        self.prepared, self.types, self.drop, self.evened = prepared, types, drop, evened
        self.calibrator, self.covered = best_ranges(prepared, calibration, types)
        self.layers, self.groups = layers(prepared), groups(prepared)
        self.whole = self.with_float(())

    def with_float(self, names: Sequence[str]) -> Quantised:
        left = [node for name in names for node in self.groups[name]]
        made = quantise(self.prepared, self.covered, self.types, in_float=left)
        return Quantised(
            made, self.calibrator, self.types, tuple(names), len(self.layers), self.drop(made), self.evened,
            self.prepared,
        )  # fmt: skip


def sensitivity(
    prepared: onnx.ModelProto, covered: Ranges, types: Int8Types, samples: Sequence[Sample]
) -> dict[str, float]:
    """For each layer, in running order, the relative squared error of the outputs when it alone (see `groups`) is in
    int8.

    Checked against: a network one layer of which has weights of very unequal size (tests/export/test_fallback.py).
    """
    expected = outputs(prepared, samples)
    found = {}
    own = groups(prepared)
    with progress("Judging layers", total=len(own)) as bar:
        for name, nodes in own.items():
            alone = quantise(prepared, covered, types, only=nodes)
            found[name] = relative_error(outputs(alone, samples), expected)
            bar.advance()
    return found


def groups(prepared: onnx.ModelProto) -> dict[str, list[str]]:
    """Each layer with the small operators (activations, sums, pools) between it and the layers before it.

    They go together: a layer in float whose input was rounded on the way has lost what it was to keep.
    """
    every = set(layers(prepared))
    makers = {name: node for node in prepared.graph.node for name in node.output}
    found = {}
    for node in prepared.graph.node:
        if node.name not in every:
            continue
        mine, left = [node.name], list(node.input)
        while left:
            maker = makers.get(left.pop())
            if maker is not None and maker.name not in every and maker.name not in mine:
                mine.append(maker.name)
                left += maker.input
        found[node.name] = mine
    return found


def _least(make: Callable[[int], Quantised], most: int, max_drop: float) -> Quantised:
    """The smallest number that keeps the drop, by doubling and then halving the gap; `most` where none does."""
    failed, count = 0, 1
    while (found := make(min(count, most))).drop > max_drop:
        if count >= most:
            return found
        failed, count = count, 2 * count
    count = min(count, most)
    while count - failed > 1:
        middle = (count + failed) // 2
        tried = make(middle)
        if tried.drop <= max_drop:
            count, found = middle, tried
        else:
            failed = middle
    return found
