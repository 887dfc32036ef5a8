"""A trained network as one ONNX file: batch norm folded, nothing in it that the runtime does not need."""

import ast
import copy
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgewright.core.environment import versions
from edgewright.core.errors import EdgewrightError
from edgewright.core.files import write_bytes
from edgewright.core.private import operators_listed_once
from edgewright.core.quiet import silent
from edgewright.core.tensors import Shape, Signature, TensorSpec, as_tree, ask
from edgewright.export.ship.provenance import WEIGHTS_KEY, weights_sha256

OPSET = 18
NEWEST_IR = 10  # what runtimes two years old still read


def export_onnx(
    model: nn.Module, takes: Shape | Signature, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write `model` in evaluation mode to `path`, batch 1, opset 18.

    The batch is fixed to 1, which is what was budgeted and measured, so that the memory plan is exact and the file can
    be taken by compilers that know no free dimensions. (In ONNX Runtime a free batch costs no time: 0.218 ms either way
    for a network of 12 inverted residual blocks at 32 px.)

    Folded:  W' = W gamma / sqrt(var + eps),  b' = (b - mean) gamma / sqrt(var + eps) + beta
    for every convolution whose output only a batch norm reads; the model itself stays as it was.

    The same model gives the same bytes. The file holds no paths or traces of the machine that made it. Its nodes are
    called as the modules they come from, so that whatever is said of a node is understood.

    Args:
        takes: its inputs and outputs; a shape (C, H, W) alone is that of one float32 "input", whose one output is
            called "logits". Several outputs are called as the network calls them.
        metadata: texts kept in the file's metadata_props, beside edgewright's version and the weights' digest.
    Errors: EdgewrightError when the network cannot be exported; nothing is written then.
    Checked against: PyTorch's own outputs with random batch statistics, branches and shared layers
        (tests/export/test_onnx.py).
    """
    ready = prepared(model)
    signature = takes if isinstance(takes, Signature) else _plain(takes)
    example = example_of(signature)
    args, kwargs = arguments(example)
    try:
        with silent(), torch.no_grad(), operators_listed_once():
            fold_batch_norms(ready, example)
            program = torch.onnx.export(
                ready,
                args,
                kwargs=kwargs,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in signature.inputs],
                output_names=_outputs(ask(ready, example), signature),
                optimize=True,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            proto = program.model_proto
    except Exception as error:  # the exporter raises its own kinds, wrapped several deep
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EdgewrightError(f"{path}: the network cannot be exported to ONNX ({reason})") from error
    name_nodes(proto.graph)
    pool_globally(strip(proto))
    own = {"edgewright": versions().get("edgewright", "unknown"), WEIGHTS_KEY: weights_sha256(proto)}
    onnx.helper.set_model_props(proto, dict(sorted({**own, **(metadata or {})}.items())))
    onnx.checker.check_model(proto, full_check=True)
    write_bytes(path, proto.SerializeToString(deterministic=True))


def _plain(shape: Shape) -> Signature:
    return Signature(
        inputs=(TensorSpec(name="input", shape=shape),), outputs=(TensorSpec(name="logits", shape=(None,)),)
    )


def example_of(signature: Signature) -> Any:
    """Zeros for every input, batch 1, as a network takes them."""
    return as_tree(
        {
            spec.name: torch.zeros(1, *(size or 1 for size in spec.shape), dtype=getattr(torch, spec.dtype))
            for spec in signature.inputs
        }
    )


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As a call takes them: several inputs by name."""
    return ((), dict(example)) if isinstance(example, Mapping) else ((example,), {})


def _outputs(found: Any, signature: Signature) -> list[str]:
    return [str(name) for name in found] if isinstance(found, Mapping) else [signature.outputs[0].name]


def prepared(model: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode, its weights laid out plainly (training leaves them channels-last)."""
    ready = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    for tensor in (*ready.parameters(), *ready.buffers()):
        tensor.data = tensor.data.contiguous()
    return ready


def fold_batch_norms(model: nn.Module, example: Any) -> int:
    """Fold, in place, every Conv2d into the BatchNorm2d that alone reads it; returns how many were folded.

    The pairs are found in the exported program, not in the module tree, so it does not matter how a network is written.
    A layer that is used twice, a convolution with a second reader and a batch norm in training mode are left alone.
    example: a tree of inputs.
    """
    args, kwargs = arguments(example)
    program = torch.export.export(model, args, kwargs)
    signature = program.graph_signature
    owners = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []
    for node in program.graph.nodes:
        owner = _owner(node, owners)
        if owner is None:
            continue
        calls[owner] += 1
        source = node.args[0]
        conv = _owner(source, owners)
        if conv is not None and len(source.users) == 1:
            pairs.append((conv, owner))
    folded = 0
    for conv_name, norm_name in pairs:
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and calls[conv_name] == calls[norm_name] == 1:
            _replace(model, conv_name, fuse_conv_bn_eval(conv, norm))
            _replace(model, norm_name, nn.Identity())
            folded += 1
    return folded


def _owner(node: object, owners: Mapping[str, str]) -> str | None:
    """The module whose parameters or buffers `node` reads, for a node that reads any."""
    if not isinstance(node, torch.fx.Node) or node.op != "call_function":
        return None
    names = [owners[source.name] for source in node.all_input_nodes if source.name in owners]
    return names[0].rpartition(".")[0] if names else None


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def pool_globally(model: onnx.ModelProto) -> int:
    """Turn every mean over both image axes into a GlobalAveragePool, in place; returns how many there were.

    The exporter writes ReduceMean, for which ONNX Runtime leaves its blocked layout: 4 % of the latency of a network
    with squeeze-excite at 32 px.
    """
    graph = model.graph
    axes = {
        tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer if _is_axes(tensor)
    }
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.value_info, *graph.input)}
    turned = 0
    for node in graph.node:
        keeps = all(attribute.i == 1 for attribute in node.attribute if attribute.name == "keepdims")
        if node.op_type != "ReduceMean" or len(node.input) != 2 or not keeps or ranks.get(node.input[0]) != 4:
            continue
        if sorted(axis % 4 for axis in axes.get(node.input[1], ())) == [2, 3]:
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
            turned += 1
    read = {name for node in graph.node for name in node.input}
    unread = [tensor for tensor in graph.initializer if tensor.name in axes and tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)
    return turned


def _is_axes(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.INT64 and list(tensor.dims) == [2]


def name_nodes(graph: onnx.GraphProto) -> None:
    """Call each node as its module: "features.3.conv"; what a module of several nodes computes besides, with its kind
    or the exporter's word: "features.3.add_1". No two have one name."""
    scopes = [_scopes(node) for node in graph.node]
    inner = {path.rpartition(".")[0] for scope in scopes for path in scope[:-1] if path}
    taken: set[str] = set()
    for node, scope in zip(graph.node, scopes, strict=True):
        path = scope[-2] if len(scope) > 1 else ""
        word = scope[-1] if scope else node.op_type.lower()
        leaf = path and path not in inner
        name = (
            path
            if leaf and path not in taken
            else ".".join(filter(None, (path, node.op_type.lower() if leaf else word)))
        )
        count, free = 1, name
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        taken.add(free)
        node.name = free


def _scopes(node: onnx.NodeProto) -> list[str]:
    """The modules around a node, outermost first, and the exporter's word for it."""
    text = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
    return [str(word) for word in ast.literal_eval(text)]


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes (stack traces, module names, paths of the machine)."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    del model.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    graph.name = "edgewright"
    model.ir_version = min(model.ir_version, NEWEST_IR)
    return model
