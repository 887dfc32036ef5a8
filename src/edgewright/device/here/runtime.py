"""The adapter to ONNX Runtime: the only file that opens a session."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.device.agent import feed_for

VERSION: str = ort.__version__
Session = ort.InferenceSession
WARNING, FATAL = 2, 4  # of what the runtime prints; the first is its own choice


def open_session(
    model: bytes | Path | str,
    threads: int = 1,
    *,
    profile_prefix: str | None = None,
    optimised_path: Path | None = None,
    arena: bool = True,
) -> Session:
    """Open `model` (a serialised ONNX file or its path) on the CPU, as a careful user would.

    Args:
        threads: threads inside one operator; operators run one after the other, in the file's order.
        profile_prefix: start the runtime's own profiler and let its file begin with this path.
        optimised_path: also write the graph as the runtime optimised it there.
        arena: the runtime's memory arena, on by default as in the runtime.

    The runtime prints nothing of its own: what fails is raised.
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
    options.log_severity_level = FATAL
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
    """The runtime's own words without its source file; where the opset is too new for it, which one it takes; where a
    node fails, which."""
    newest = re.search(r"Opset (\d+) .* support for domain (\S+) is till opset (\d+)", text)
    if newest:
        number, domain, taken = newest.groups()
        return f"opset {number} of {domain} is too new for version {VERSION}; export it with {taken} or an older one"
    plain = re.sub(r"/onnxruntime_src/\S+ .*?\) ", "", " ".join(text.split()), count=1)
    node = re.search(r"while running (\S+) node\. Name:'(.*?)' Status Message: (.*)", plain)
    return f"node '{node[2]}', a {node[1]}: {node[3]}" if node else plain


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Sessions that other code opens print nothing either; what fails is still raised."""
    ort.set_default_logger_severity(FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(WARNING)


def run(session: Session, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Every output, in the file's order, for one array an input, in the file's order.

    Errors: EdgewrightError, in the runtime's own words, for a model that fails when it runs.
    """
    feed = {given.name: np.asarray(array) for given, array in zip(session.get_inputs(), arrays, strict=True)}
    try:
        found = session.run(None, feed)
    except Exception as error:  # the runtime's exception classes are private, one for each status code
        raise EdgewrightError(f"ONNX Runtime fails when it runs it ({_reason(str(error))})") from None
    return [np.asarray(values) for values in found]


def input_for(session: Session, seed: int = 0) -> list[np.ndarray]:
    """One array for each input, in order: normal numbers, zeros where they are whole; free dimensions become 1."""
    try:
        return [*feed_for(session, seed).values()]
    except ValueError as error:
        raise BadInput(str(error)) from None
