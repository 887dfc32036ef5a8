"""The same network for several samples at once: does it say the same of each as one at a time?

The files that are handed out take one sample. A network that is exported once more for larger batches must give the
same answers all the same, and kernels are chosen by the batch: so the same network is built for `BATCH` samples too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.core.errors import EdgewrightError
from edgewright.export.alike import TINY, aligned
from edgewright.export.gates import FP32_TOLERANCE
from edgewright.export.graph import free_name, in_order, inputs_of, tensor_names, with_shapes
from edgewright.export.running import Answers, Sample, Says, call_of, gathered

BATCH = 8
BATCHES = 4  # how many are compared
MAY_FLIP = 0.01  # share of whole numbers that may change: where two were all but equal, rounding decides


@dataclass(frozen=True)
class BatchGate:
    """How a candidate's answers move when samples come in another way than one at a time in their order.

    size: of the batch; 1 where the file's is fixed, whose samples come a second time in the opposite order then: a
    file must not remember.   output: the one that moves most.   max_abs_difference: against its own answers, one at a
    time; of whole numbers the share that differs.   allowed: most that this may be: how far those are from the
    source's, and a thousandth of the largest value.
    """

    size: int
    max_abs_difference: float
    allowed: float
    output: str = ""

    def refusal(self) -> str | None:
        """Why it must not be handed out, or None; a difference that is not a number is one too."""
        if self.max_abs_difference <= self.allowed:
            return None
        how = f"in batches of {self.size}" if self.size > 1 else "when the same samples come in another order"
        whose = f"output '{self.output}'" if self.output else "outputs"
        return f"gives other answers {how}: {whose} differs by up to {self.max_abs_difference:.3g}"


class Unbatched(EdgewrightError):
    """A network cannot be built for several samples, or mixes them; the text says why."""


def rebatched(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A network of batch 1 for `batch` samples: its inputs, and what a Reshape was told of the first dimension.

    Whether the network takes a batch at all is not asked here; `unstacked` outputs of it show that.
    Errors: Unbatched for an input without a batch in its first place.
    """
    for spec in inputs_of(model):
        if spec.shape[:1] != (1,):
            raise Unbatched(f"the input '{spec.name}' has no batch in its first place")
    made = in_order(model)
    graph, constants = made.graph, {tensor.name: tensor for tensor in made.graph.initializer}
    told = {node.output[0]: node.attribute[0].t for node in graph.node if _is_constant(node)} | constants
    moving, names = {spec.name for spec in inputs_of(model)}, tensor_names(model)
    for node in graph.node:
        if moving & set(node.input):
            moving |= set(node.output)
        if node.op_type != "Reshape" or node.input[0] not in moving or node.input[1] not in told:
            continue
        shape = numpy_helper.to_array(told[node.input[1]])
        if len(shape) and shape[0] == 1:
            name = free_name(f"{node.input[1]}.batch", names)
            names.add(name)
            values = [batch, *shape[1:].tolist()]
            graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(shape)], values))
            node.input[1] = name
    return with_shapes(made, {spec.name: (batch, *_rest(spec.shape)) for spec in inputs_of(model)})


def _rest(shape: Sequence[int | None]) -> list[int]:
    return [size or 1 for size in shape[1:]]


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t")


def stacked(samples: Sequence[Sample]) -> list[Sample]:
    """The first samples in BATCHES batches of BATCH, from the start again where there are fewer."""
    count = min(BATCHES, -(-len(samples) // BATCH))
    rows = [[samples[index % len(samples)] for index in range(part * BATCH, (part + 1) * BATCH)]
            for part in range(count)]  # fmt: skip
    return [[np.concatenate(arrays) for arrays in zip(*row, strict=True)] for row in rows]


def in_batches(call: Says, samples: Sequence[Sample], alone: Sequence[Answers]) -> list[np.ndarray]:
    """What a program for BATCH samples says of the first of them, as one by one: the outputs beside `alone`, which they
    said alone, without those that came again.

    Errors: Unbatched where a batch's outputs are not those of its samples side by side; EdgewrightError from `call`.
    """
    found = [call(batch) for batch in stacked(samples)]
    count = min(len(samples), BATCH * len(found))
    return [
        np.concatenate([_apart(many, one) for many in outputs])[:count]
        for outputs, one in zip(zip(*found, strict=True), alone, strict=True)
    ]


def _apart(many: np.ndarray, alone: Answers) -> np.ndarray:
    """A batch's output with its samples first, each in the shape that it has alone; whichever axis they lie along."""
    if not isinstance(alone, np.ndarray):
        raise Unbatched("an output's shape varies from sample to sample")
    one = alone.shape[1:]
    if many.shape == (BATCH, *one):
        return many
    axes = [axis for axis, size in enumerate(one) if many.shape == (*one[:axis], BATCH * size, *one[axis + 1 :])]
    if len(axes) != 1:
        raise Unbatched(f"of {BATCH} samples an output has the shape {many.shape}, of one {one}")
    return np.stack(np.split(many, BATCH, axes[0]))


def takes_batches(model: onnx.ModelProto, samples: Sequence[Sample], expected: Sequence[Answers]) -> bool:
    """Whether the float network gives `expected`, its outputs one at a time, in batches too.

    Not where it mixes its samples, or was exported so that its shapes hold the batch of 1 in places that `rebatched`
    does not know.
    """
    try:
        found = in_batches(call_of(rebatched(model, BATCH)), samples, expected)
    except EdgewrightError:  # shapes that clash, for one
        return False
    first = [values[: len(rows)] for values, rows in zip(expected, found, strict=True)]
    return _worst(BATCH, [""] * len(found), found, first, first).refusal() is None


def compare_batches(
    names: Sequence[str],
    call: Says,
    samples: Sequence[Sample],
    alone: Sequence[Answers],
    expected: Sequence[Answers],
) -> BatchGate:
    """A program for BATCH samples against the answers `alone` of the one for one, and the source's, `expected`.

    Errors: Unbatched, and EdgewrightError where it fails when it runs: what was built for a batch says nothing then.
    """
    found = in_batches(call, samples, alone)
    return _worst(BATCH, names, found, *([y[: len(found[0])] for y in rows] for rows in (alone, expected)))


def compare_again(
    names: Sequence[str],
    call: Says,
    samples: Sequence[Sample],
    alone: Sequence[Answers],
    expected: Sequence[Answers],
) -> BatchGate:
    """A program of fixed batch, asked once more in the opposite order."""
    count = min(len(samples), BATCH)
    found = gathered([call(samples[index]) for index in reversed(range(count))][::-1])
    return _worst(1, names, found, *([y[:count] for y in rows] for rows in (alone, expected)))


def _worst(
    size: int,
    names: Sequence[str],
    found: Sequence[Answers],
    alone: Sequence[Answers],
    expected: Sequence[Answers],
) -> BatchGate:
    """The gate of the output that moves most beside what it may."""
    gates = [
        BatchGate(size, _moved(one, many), _moved(source, one) + _least(source), name)
        for name, many, one, source in zip(names, found, alone, expected, strict=True)
    ]
    return max(gates, key=lambda gate: gate.max_abs_difference / gate.allowed)


def _moved(one: Answers, other: Answers) -> float:
    """The largest difference; the share that differs of whole numbers; infinite where a shape does, or a number is
    none."""
    y, z, misshapen = aligned(one, other)
    if misshapen or not np.isfinite(z).all():
        return float("inf")
    if y.dtype.kind != "f":
        return float((y != z).mean()) if y.size else 0.0
    return float(np.abs(z - y).max(initial=0.0))


def _least(expected: Answers) -> float:
    y, _, _ = aligned(expected, expected)
    if y.dtype.kind != "f":
        return MAY_FLIP
    return max(FP32_TOLERANCE * float(np.abs(y).max(initial=0.0)), TINY)
