"""Peak activation memory by liveness: how many bytes of tensors are alive at once while a network runs.

Convention: float32, batch 1. At every operator the tensors alive are counted: the network's input until its last use,
every intermediate result from the operator that makes it to its last use, and outputs to the end. Weights do not count.
An operator that the runtime fuses (activation or residual add after a convolution) or does in place (element by element
over an input that nothing else reads) needs no buffer of its own; a reshape is its input under another name.

Against the bytes that ONNX Runtime 1.31 held on x86 (`profile.runtime_peak_bytes`): within 10 % for convolutional
networks whose widths are multiples of 16; up to 15 % more is held where widths are padded to 16; up to 2.1 times as
much in networks with squeeze-excite, whose gated tensor the runtime keeps in two layouts and whose dead buffers its
planner holds for later tensors. The plan is what a runtime without such copies needs.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import onnx

from edgewright.ir.graph import Graph
from edgewright.ir.steps import Step, fused, of_graph, of_onnx


def peak_bytes(
    sizes: Mapping[Hashable, int],
    steps: Sequence[Step],
    inputs: Sequence[Hashable],
    outputs: Sequence[Hashable],
) -> int:
    """The most bytes alive at once. `sizes`: bytes by tensor; `steps` in running order.

    An output takes over the buffer of a tensor in `over` when that tensor has the same size, is not an input of the
    network, and this step is the only one that reads it last (for a fused add: its last reader).
    Checked against: a brute-force count, and ONNX Runtime's allocator (tests/device/test_memory.py).
    """
    last_use = {name: index for index, step in enumerate(steps) for name in step.inputs}
    last_use |= dict.fromkeys(outputs, len(steps))
    live = sum(sizes[name] for name in set(inputs))
    peak = live
    for index, step in enumerate(steps):
        dying = [name for name in dict.fromkeys(step.inputs) if last_use[name] == index]
        free_for_taking = [name for name in step.over if name in dying and name not in inputs]
        for output in step.outputs:
            taken = next((name for name in free_for_taking if sizes[name] == sizes[output]), None)
            if taken is None:
                live += sizes[output]
            else:
                free_for_taking.remove(taken)
                dying.remove(taken)
        peak = max(peak, live)
        unread = [name for name in step.outputs if name not in last_use]
        live -= sum(sizes[name] for name in (*dying, *unread))
    return peak


def graph_peak_bytes(graph: Graph, *, adds: bool = True) -> int:
    """Peak activation bytes of a `Graph` (convention at the top of this file).

    adds: whether convolutions swallow adds; false for the kernels of microcontrollers.
    """
    seen = of_graph(graph)
    return peak_bytes(seen.sizes, fused(seen.steps, seen.outputs, adds), seen.inputs, seen.outputs)


def onnx_peak_bytes(model: bytes | Path | str | onnx.ModelProto) -> int:
    """Peak activation bytes of an ONNX model (convention at the top of this file); free dimensions count as 1.

    Errors: BadInput for what is no ONNX model, and for a tensor whose shape cannot be inferred.
    """
    seen = of_onnx(model)
    return peak_bytes(seen.sizes, fused(seen.steps, seen.outputs), seen.inputs, seen.outputs)
