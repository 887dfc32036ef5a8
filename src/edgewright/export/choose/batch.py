"""The same network for several samples at once: does it say the same of each as one at a time?

The files that are handed out take one sample. A network that is exported once more for larger batches must give the
same answers all the same, and kernels are chosen by the batch: so the same network is built for `BATCH` samples too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.device.here.runtime import open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.export.gates import FP32_TOLERANCE

BATCH = 8
BATCHES = 4  # how many are compared


@dataclass(frozen=True)
class BatchGate:
    """How a candidate's answers move when samples come in another way than one at a time in their order.

    size: of the batch; 1 where the file's is fixed, whose samples come a second time in the opposite order then: a
    file must not remember.   max_abs_difference: against its own answers, one at a time.   allowed: most that this
    may be: how far those are from the source's, and a thousandth of the largest output.
    """

    size: int
    max_abs_difference: float
    allowed: float

    def refusal(self) -> str | None:
        """Why it must not be handed out, or None; a difference that is not a number is one too."""
        if self.max_abs_difference <= self.allowed:
            return None
        how = f"in batches of {self.size}" if self.size > 1 else "when the same samples come in another order"
        return f"gives other answers {how}: outputs differ by up to {self.max_abs_difference:.3g}"


def rebatched(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A network of batch 1 for `batch` samples: its input, and what a Reshape was told of the first dimension.

    Whether the network takes a batch at all is not asked here; `stacked_outputs` of it show that.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    source = next(value for value in graph.input if value.name not in constants)
    source.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    told = {node.output[0]: node.attribute[0].t for node in graph.node if _is_constant(node)} | constants
    moving = _from(source.name, graph)
    for index, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] not in moving or node.input[1] not in told:
            continue
        shape = numpy_helper.to_array(told[node.input[1]])
        if len(shape) and shape[0] == 1:
            name = f"{node.input[1]}.batch{index}"
            values = [batch, *shape[1:].tolist()]
            graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(shape)], values))
            node.input[1] = name
    return made


def _from(name: str, graph: onnx.GraphProto) -> set[str]:
    """All tensors that depend on `name`; what quantises a graph does not keep its nodes in order."""
    found, before = {name}, 0
    while len(found) > before:
        before = len(found)
        for node in graph.node:
            if found & set(node.input):
                found |= set(node.output)
    return found


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t")


def stacked(samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The first samples in BATCHES batches of BATCH, from the start again where there are fewer."""
    count = min(BATCHES, -(-len(samples) // BATCH))
    rows = [[samples[index % len(samples)] for index in range(part * BATCH, (part + 1) * BATCH)]
            for part in range(count)]  # fmt: skip
    return [np.concatenate(row) for row in rows]


def unstacked(found: Sequence[np.ndarray], samples: int) -> np.ndarray:
    """The outputs of `stacked` batches, one row a sample, without those that came again."""
    return np.concatenate(found)[: min(samples, BATCH * len(found))]


def takes_batches(model: onnx.ModelProto, samples: Sequence[np.ndarray], expected: np.ndarray) -> bool:
    """Whether the float network gives `expected` (N, ...), its outputs one at a time, in batches too.

    Not where it mixes its samples, or was exported so that its shapes hold the batch of 1 in places that `rebatched`
    does not know.
    """
    try:
        session = open_session(rebatched(model, BATCH).SerializeToString(), quiet=True)
        found = unstacked([run_session(session, batch) for batch in stacked(samples)], len(samples))
    except Exception:  # shapes that clash; the runtime's exception classes are private, one for each status code
        return False
    wanted = expected[: len(found)]
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() <= _least(wanted))


def compare_batches(
    call: Callable[[np.ndarray], np.ndarray], samples: Sequence[np.ndarray], alone: np.ndarray, expected: np.ndarray
) -> BatchGate:
    """A program for BATCH samples against the answers `alone` of the one for one, and the source's, `expected`."""
    found = unstacked([call(batch) for batch in stacked(samples)], len(samples))
    return _gate(BATCH, found, alone[: len(found)], expected[: len(found)])


def compare_again(
    call: Callable[[np.ndarray], np.ndarray], samples: Sequence[np.ndarray], alone: np.ndarray, expected: np.ndarray
) -> BatchGate:
    """A program of fixed batch, asked once more in the opposite order."""
    count = min(len(samples), BATCH)
    found = np.concatenate([call(samples[index]) for index in reversed(range(count))])[::-1]
    return _gate(1, found, alone[:count], expected[:count])


def _gate(size: int, found: np.ndarray, alone: np.ndarray, expected: np.ndarray) -> BatchGate:
    if found.shape != alone.shape:
        raise ValueError(f"outputs of shape {found.shape[1:]} in batches, {alone.shape[1:]} one at a time")
    allowed = float(np.abs(alone - expected).max()) + _least(expected)
    return BatchGate(size, float(np.abs(found - alone).max()), allowed)


def _least(expected: np.ndarray) -> float:
    return FP32_TOLERANCE * max(1.0, float(np.abs(expected).max()))
