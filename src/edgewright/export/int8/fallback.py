"""Which layers suffer most from int8, and how few of them must stay in float to keep the accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgewright.core.progress import progress
from edgewright.export.int8.quantise import (
    Int8Types,
    Ranges,
    best_ranges,
    layers,
    outputs,
    prepare,
    quantise,
    relative_error,
)

JUDGED_ON = 16  # samples by which a layer's damage is told
Drop = Callable[[onnx.ModelProto], float]


@dataclass(frozen=True)
class Quantised:
    """An int8 network. calibrator: which was best.   in_float: layers that were left.   drop: points lost, as told."""

    model: onnx.ModelProto
    calibrator: str
    types: Int8Types
    in_float: tuple[str, ...]
    layers: int
    drop: float

    def note(self) -> str:
        """In words: types, calibrator, and how many layers stayed in float."""
        kept = f", {len(self.in_float)} of {self.layers} layers in float" if self.in_float else ""
        return f"{self.types.text()}, {self.calibrator} ranges{kept}"


def quantise_within(
    model: onnx.ModelProto, calibration: Sequence[np.ndarray], types: Int8Types, drop: Drop, max_drop: float
) -> Quantised:
    """Everything in int8 with the best calibrator; where that loses too much, the worst layers go back to float.

    Layers are ordered by `sensitivity`; the 1, 2, 4, ... worst go back until drop <= max_drop, then the gap is halved
    down to the fewest that keep it. Where nothing keeps it, all layers being float again, that network is handed back
    with its drop, for the caller to refuse.

    Args:
        calibration: inputs as the network takes them, batch 1 each.
        drop: points of accuracy that a network loses against its source (see `gates.py`).
    Differs from NNCF's accuracy-controlled quantisation, which orders by the accuracy each layer gives back one by one:
        here by each layer's own damage, so that the accuracy is told about 2 log2 n times.
    """
    prepared = prepare(model)
    calibrator, covered = best_ranges(prepared, calibration, types)
    every = layers(prepared)

    def with_float(names: Sequence[str]) -> Quantised:
        made = quantise(prepared, covered, types, in_float=names)
        return Quantised(made, calibrator, types, tuple(names), len(every), drop(made))

    whole = with_float(())
    if whole.drop <= max_drop or not every:
        return whole
    damage = sensitivity(prepared, covered, types, calibration[:JUDGED_ON])
    worst = sorted(every, key=lambda name: -damage[name])
    return _least(lambda count: with_float(worst[:count]), len(every), max_drop)


def sensitivity(
    prepared: onnx.ModelProto, covered: Ranges, types: Int8Types, inputs: Sequence[np.ndarray]
) -> dict[str, float]:
    """For each layer the relative squared error of the outputs when it alone is in int8.

    Checked against: a network one layer of which has weights of very unequal size (tests/export/test_fallback.py).
    """
    expected = outputs(prepared, inputs)
    found = {}
    names = layers(prepared)
    with progress("Judging layers", total=len(names)) as bar:
        for name in names:
            alone = quantise(prepared, covered, types, only=[name])
            found[name] = relative_error(outputs(alone, inputs), expected)
            bar.advance()
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
