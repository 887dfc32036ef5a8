"""The network that is to be shipped, of a run or an ONNX file from anywhere, checked before anything is done."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import external_data_helper
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.core.files import sha256
from edgewright.core.run import RunFolder
from edgewright.device.here.runtime import open_session
from edgewright.export.load import load_model
from edgewright.export.runtimes.base import fixed_shape
from edgewright.task.base import TaskSpec

EXTERNAL = onnx.TensorProto.EXTERNAL
NEWEST_IR = 10  # as `export.onnx` writes: what runtimes two years old still read
KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}


@dataclass(frozen=True)
class Source:
    """A network to ship.

    path: the ONNX file.   model: batch 1, every shape fixed.   shape: of the input.   digest: SHA-256 of the file.
    module: the same in PyTorch, for a run.   spec: the task that file or run says it learned.   run: a run's folder.
    """

    path: Path
    model: onnx.ModelProto
    shape: tuple[int, ...]
    digest: str
    module: nn.Module | None = None
    spec: TaskSpec | None = None
    run: RunFolder | None = None


def read_source(place: str | Path, shape: tuple[int, ...] | None = None) -> Source:
    """A run folder or an ONNX file, checked.

    Args:    shape: decides free dimensions of an ONNX file's input, batch first and 1.
    Errors:  BadInput for a folder that is no finished run, an altered or broken file, an operator or opset that is not
        known, external data outside the file's folder, several inputs, and free dimensions that `shape` leaves open.
    """
    path = Path(place)
    if path.is_dir():
        run = RunFolder(path)
        result = run.read_result()
        file = run.float_onnx if run.float_onnx.exists() else run.onnx  # a type that was chosen is not chosen from
        run.check_file(file)
        model, found = read_onnx(file, shape)
        spec = TaskSpec.parse(result.task, str(run.result))
        return Source(file, model, found, sha256(file), load_model(path), spec, run)
    model, found = read_onnx(path, shape)
    return Source(path, model, found, sha256(path), spec=_spec(model, path))


def read_onnx(path: Path, shape: tuple[int, ...] | None = None) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """The model with its weights inside, one float32 input of a fixed shape with batch 1; and that shape."""
    model = check_onnx(path)
    found = _fix_input(model, path, shape)
    model.ir_version = min(model.ir_version, NEWEST_IR)
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
        onnx.checker.check_model(model)
    except Exception as error:
        raise BadInput(f"{path}: not a valid ONNX model ({_first_line(error)})") from None
    try:
        open_session(model.SerializeToString())
    except BadInput as error:  # it names the node
        raise BadInput(str(error).replace("the model", str(path), 1)) from None
    return model, found


def opened(path: Path) -> onnx.ModelProto:
    """The graph of an ONNX file; weights that lie in other files are not read yet."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's error classes differ between versions
        raise BadInput(f"{path}: not an ONNX file, or a broken one") from None
    if not model.graph.node:
        raise BadInput(f"{path}: not an ONNX file, or one without operators")
    return model


def check_onnx(path: Path) -> onnx.ModelProto:
    """The model with its weights inside, its operators, opset and where its weights lie being as they should."""
    model = opened(path)
    _check_operators(model, path)
    load_external(model, path)
    return model


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Every node must be an operator of the opset that the file says; the first that is not is named."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    newest = onnx.defs.onnx_opset_version()
    version = opsets.get("", opsets.get("ai.onnx", 0))
    if version > newest or version < 1:
        raise BadInput(f"{path}: opset {version} is not known here; export it with one from 1 to {newest}")
    for index, node in enumerate(_nodes(model.graph)):
        standard = node.domain in ("", "ai.onnx")
        known = onnx.defs.has(node.op_type, max_inclusive_version=version) if standard else node.domain in KNOWN_DOMAINS
        local = any(f.name == node.op_type and f.domain == node.domain for f in model.functions)
        if not known and not local:
            name = f"'{node.name}'" if node.name else f"number {index}"
            where = f"opset {version}" if standard else f"domain '{node.domain}'"
            raise BadInput(f"{path}: node {name} is a '{node.op_type}', an operator that {where} does not have here")


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """All nodes, those inside loops and branches too."""
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, attribute.g):
                found += _nodes(inner) if inner.node else []
    return found


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constants, wherever they are kept."""
    yield from graph.initializer
    for node in _nodes(graph):
        for attribute in node.attribute:
            yield from (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else ()))
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from inner.initializer


def load_external(model: onnx.ModelProto, path: Path) -> None:
    """Bring in weights kept in other files, which must lie in the model's own folder."""
    folder = path.resolve().parent
    for tensor in _tensors(model.graph):
        if tensor.data_location != EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        file = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise BadInput(
                f"{path}: weight '{tensor.name}' is kept in '{location}', outside the model's folder; that is refused"
            )
        if not file.is_file():
            raise BadInput(f"{path}: weight '{tensor.name}' is kept in '{location}', which is not there")
    try:
        external_data_helper.load_external_data_for_model(model, str(folder))
    except Exception as error:
        raise BadInput(f"{path}: its external weights cannot be read ({_first_line(error)})") from None


def _fix_input(model: onnx.ModelProto, path: Path, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise BadInput(f"{path}: has {len(inputs)} inputs; one float32 input is expected")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        told = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise BadInput(f"{path}: the input '{inputs[0].name}' is {told}; one float32 input is expected")
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim]
    if not dims:
        raise BadInput(f"{path}: the input '{inputs[0].name}' has no shape; export it with one")
    found = fixed_shape(dims, shape, str(path))
    if found[0] != 1:
        raise BadInput(f"{path}: the batch is fixed to {found[0]}; export it with batch 1, or with a free batch")
    freed = None in dims
    for dim, size in zip(kind.shape.dim, found, strict=True):
        dim.dim_value = size
    if freed:  # what was said of other tensors with the batch free may no longer be true
        del model.graph.value_info[:]
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
    return found


def _spec(model: onnx.ModelProto, path: Path) -> TaskSpec | None:
    """The task that a file of ours carries in its metadata."""
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if "edgewright" not in texts or "task" not in texts:
        return None
    try:
        return TaskSpec.model_validate_json(texts["task"])
    except ValueError:
        raise BadInput(f"{path}: the task in its metadata cannot be read; the file was altered") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
