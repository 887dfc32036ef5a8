"""The adapter to ONNX Runtime: the only file that opens a session."""

import re
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgewright.core.errors import BadInput

VERSION: str = ort.__version__


def open_session(
    model: bytes | Path | str,
    threads: int = 1,
    *,
    profile_prefix: str | None = None,
    optimised_path: Path | None = None,
    arena: bool = True,
    quiet: bool = False,
) -> ort.InferenceSession:
    """Open `model` (a serialised ONNX file or its path) on the CPU, as a careful user would.

    Args:
        threads: threads inside one operator; operators run one after the other, in the file's order.
        profile_prefix: start the runtime's own profiler and let its file begin with this path.
        optimised_path: also write the graph as the runtime optimised it there.
        arena: the runtime's memory arena, on by default as in the runtime.
        quiet: for a model that may fail when it runs: the error is raised, and the runtime prints nothing of its own.

    Errors: BadInput for a missing file and for one that the runtime cannot read.
    """
    if threads < 1:
        raise BadInput(f"threads must be at least 1 (got {threads})")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = 4 if optimised_path or quiet else 3
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    if optimised_path:
        options.optimized_model_filepath = str(optimised_path)
    where = "the model" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise BadInput(f"{where}: no such file")
    try:
        return ort.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's exception classes are private, one for each status code
        raise BadInput(f"{where}: ONNX Runtime cannot open it ({_reason(str(error))})") from None


def _reason(text: str) -> str:
    """The runtime's own words without its source file; where the opset is too new for it, which one it takes."""
    newest = re.search(r"Opset (\d+) .* support for domain (\S+) is till opset (\d+)", text)
    if newest:
        number, domain, taken = newest.groups()
        return f"opset {number} of {domain} is too new for version {VERSION}; export it with {taken} or an older one"
    return re.sub(r"/onnxruntime_src/\S+ .*?\) ", "", " ".join(text.split()), count=1)


def run(session: ort.InferenceSession, array: np.ndarray) -> np.ndarray:
    """The first output for `array` as the first input."""
    return np.asarray(session.run(None, {session.get_inputs()[0].name: array})[0])


def input_for(session: ort.InferenceSession, seed: int = 0) -> np.ndarray:
    """A normal float32 array that fits the first input; free dimensions become 1."""
    first = session.get_inputs()[0]
    if first.type != "tensor(float)":
        raise BadInput(f"the model's input '{first.name}' is {first.type}; only float32 inputs can be measured")
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in first.shape]
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
