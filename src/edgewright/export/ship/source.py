"""The network that is to be shipped, of a run or an ONNX file from anywhere, checked before anything is done."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import nn

from edgewright.core.errors import BadInput, one_line
from edgewright.core.files import sha256
from edgewright.core.run import RunFolder
from edgewright.core.tensors import TensorSpec
from edgewright.device.here.runtime import open_session
from edgewright.export.graph import MOST_BYTES, all_nodes, checked, inferred, inputs_of, outputs_of, with_shapes
from edgewright.export.load import load_model
from edgewright.export.runtimes.base import Asked, fixed
from edgewright.task.base import TaskSpec

EXTERNAL, DEFAULT = onnx.TensorProto.EXTERNAL, onnx.TensorProto.DEFAULT
NEWEST_IR = 10  # as `export.onnx` writes: what runtimes two years old still read
STANDARD = ("", "ai.onnx")
KNOWN_DOMAINS = {*STANDARD, "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}
NO_TENSORS = {
    "sequence_type": ("a sequence", "end the network in tensors (for scikit-learn: zipmap=False)"),
    "map_type": ("a map", "end the network in tensors (for scikit-learn: zipmap=False)"),
    "optional_type": ("optional", "export the network with it, or without"),
    "sparse_tensor_type": ("a sparse tensor", "export the network with dense ones"),
}


@dataclass(frozen=True)
class Source:
    """A network to ship.

    path: the ONNX file.   model: batch 1, every input's shape fixed.   digest: SHA-256 of the file.   module: the same
    in PyTorch, for a run.   spec: the task that file or run says it learned.   run: a run's folder.
    """

    path: Path
    model: onnx.ModelProto
    digest: str
    module: nn.Module | None = None
    spec: TaskSpec | None = None
    run: RunFolder | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Shapes with the batch."""
        return inputs_of(self.model)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The same; () where the rank is not known."""
        return outputs_of(self.model)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first input, with its batch."""
        return tuple(size or 1 for size in self.inputs[0].shape)


def read_source(place: str | Path, shape: Asked = None) -> Source:
    """A run folder or an ONNX file, checked.

    Args:    shape: decides free dimensions of an ONNX file's inputs, with the batch; by name where there are several.
    Errors:  BadInput for a folder that is no finished run, an altered or broken file, an operator or opset that is not
        known, external data outside the file's folder, what is no tensor of numbers, and free dimensions that `shape`
        leaves open.
    """
    path = Path(place)
    if path.is_dir():
        run = RunFolder(path)
        result = run.read_result()
        file = run.float_onnx if run.float_onnx.exists() else run.onnx  # a type that was chosen is not chosen from
        run.check_file(file)
        model = read_onnx(file, shape)
        spec = TaskSpec.parse(result.task, str(run.result))
        return Source(file, model, sha256(file), load_model(path), spec, run)
    model = read_onnx(path, shape)
    return Source(path, model, sha256(path), spec=_spec(model, path))


def read_onnx(path: Path, shape: Asked = None) -> onnx.ModelProto:
    """The model with its weights inside and every input's shape fixed, batch 1.   Errors: as of `read_source`."""
    model = _valid(check_onnx(path), path)
    _check_ends(model, path)
    model = _fix_inputs(model, path, shape)
    model.ir_version = min(model.ir_version, NEWEST_IR)
    try:
        open_session(checked(model, f"{path} with its sizes fixed").SerializeToString())
    except BadInput as error:  # it names the node
        raise BadInput(str(error).replace("the model", str(path), 1)) from None
    return model


def _valid(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The file as it came, before anything is changed, with the shapes between its nodes."""
    if model.ByteSize() > MOST_BYTES:
        raise BadInput(f"{path}: more than 2 GB with its weights, which is more than can be chosen from")
    try:
        model = inferred(model)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BadInput(f"{path}: not a valid ONNX model ({_first_line(error)})") from None
    return model


def _check_ends(model: onnx.ModelProto, path: Path) -> None:
    """Inputs and outputs must be tensors of numbers."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for word, values in (("input", inputs), ("output", model.graph.output)):
        for value in values:
            what = value.type.WhichOneof("value")
            if what in NO_TENSORS:
                kind, remedy = NO_TENSORS[what]
                raise BadInput(f"{path}: the {word} '{value.name}' is {kind}, and only tensors are taken; {remedy}")
            if value.type.tensor_type.elem_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
                raise BadInput(f"{path}: the {word} '{value.name}' is no tensor of numbers, which alone are taken")
    if not inputs:
        raise BadInput(f"{path}: has no input, so there is nothing to compare files on")
    for value in inputs:
        if not value.type.tensor_type.HasField("shape"):
            raise BadInput(f"{path}: the input '{value.name}' has no shape; export it with one")


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
    version = next((opsets[domain] for domain in STANDARD if domain in opsets), 0)
    nodes = list(all_nodes(model.graph))
    if version > newest or (version < 1 and any(node.domain in STANDARD for node in nodes)):
        raise BadInput(f"{path}: opset {version} is not known here; export it with one from 1 to {newest}")
    local = {(function.domain, function.name) for function in model.functions}
    for index, node in enumerate(nodes):
        standard = node.domain in STANDARD
        known = onnx.defs.has(node.op_type, max_inclusive_version=version) if standard else node.domain in KNOWN_DOMAINS
        if not known and (node.domain, node.op_type) not in local:
            name = f"'{node.name}'" if node.name else f"number {index}"
            where = f"opset {version}" if standard else f"domain '{node.domain}'"
            raise BadInput(f"{path}: node {name} is a '{node.op_type}', an operator that {where} does not have here")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constants, wherever they are kept."""
    yield from graph.initializer
    for node in all_nodes(graph):
        for attribute in node.attribute:
            yield from (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else ()))
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from inner.initializer


def load_external(model: onnx.ModelProto, path: Path) -> None:
    """Bring in weights kept in other files, which must lie in the model's own folder.

    A model that is a link has two: where the link lies, and where the file lies that it leads to. However a weight is
    named, its file itself must lie in one of them: so the cache of a hub works, where both are links into one folder.
    """
    for tensor in _tensors(model.graph):
        if tensor.data_location != EXTERNAL:
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        file = _external_file(path, tensor.name, said.get("location", ""))
        try:
            start = int(said.get("offset", 0))
            size = int(said["length"]) if "length" in said else file.stat().st_size - start
            with file.open("rb") as held:
                held.seek(start)
                values = held.read(size)
        except (OSError, ValueError) as error:
            raise BadInput(f"{path}: its external weights cannot be read ({one_line(error)})") from None
        if len(values) != size:
            raise BadInput(f"{path}: weight '{tensor.name}' is cut off in '{file.name}'; copy that file again")
        tensor.raw_data, tensor.data_location = values, DEFAULT
        del tensor.external_data[:]


def _external_file(path: Path, weight: str, location: str) -> Path:
    folders = list(dict.fromkeys((path.absolute().parent.resolve(), path.resolve().parent)))
    ways = [] if not location or Path(location).is_absolute() else [folder / location for folder in folders]
    inside = [way for way in ways if any(way.resolve().is_relative_to(folder) for folder in folders)]
    found = next((way for way in inside if way.is_file()), None)
    if found is not None:
        return found
    told = f"{path}: weight '{weight}' is kept in '{location}'"
    if not inside or any(way.exists() for way in ways):
        raise BadInput(f"{told}, outside the model's folder; that is refused")
    raise BadInput(f"{told}, which is not there")


def _fix_inputs(model: onnx.ModelProto, path: Path, shape: Asked) -> onnx.ModelProto:
    taken = inputs_of(model)
    found = fixed(taken, shape, str(path))
    first = {spec.shape[0] for spec in found if spec.shape}
    if len(first) == 1 and first != {1}:
        raise BadInput(f"{path}: the batch is fixed to {first.pop()}; export it with batch 1, or with a free batch")
    if taken == found:
        return model
    return with_shapes(model, {spec.name: [size or 1 for size in spec.shape] for spec in found})


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
