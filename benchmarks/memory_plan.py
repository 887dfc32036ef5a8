"""Memory plans beside the arenas that runtimes really take.

    python benchmarks/memory_plan.py resnet18.onnx mobilenetv2.onnx efficientnet_lite0.onnx --int8 weights_mcunet_int8

Each float network as it is and in int8, each integer network of `--int8` (.npz files) in int8. Weights are drawn anew:
memory does not depend on them. "least": the most bytes alive at once, the input included, below which no arena can be.
"plan": the arena that `device/board/memory_plan.py` needs. Then, for each runtime that is installed, what the plan says
by that runtime's rules, what the runtime takes, and the one over the other:

    onnxruntime   the block of its memory pattern, from its profile, second run; inputs and outputs are the caller's.
                  Foretold from the ONNX file alone.
    litert        the span of the addresses of all its tensors, XNNPACK off, whose workspace cannot be read. Foretold
                  from the operators of the .tflite file, to which its converter adds paddings and a transpose.
    executorch    the buffer written into the .pte, without a delegate (with one it holds input and output only).
                  Foretold from the ONNX file alone. Its int8 exists only in delegates.
"""

import argparse
import json
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.errors import EdgewrightError, one_line
from edgewright.core.files import write_text
from edgewright.core.quiet import silent
from edgewright.device.board.memory_plan import RULES, plan_memory
from edgewright.device.here.cpu import Cpu
from edgewright.export.int8.calibrators import CALIBRATORS
from edgewright.export.int8.quantise import collect, prepare, quantise, ranges, types_here
from edgewright.export.running import Sample
from edgewright.export.runtimes.base import Network
from edgewright.export.runtimes.litert_adapter import LiteRt
from edgewright.ir.liveness import Activations, Role, Step
from edgewright.ir.to_onnx import to_onnx
from edgewright.model.mcunet import int8_graph, read_plan

IN_PLACE: dict[str, Role] = {"ADD": "add", "RESHAPE": "view"}  # what LiteRT computes over an input


@dataclass(frozen=True)
class Found:
    """planned, taken: bytes."""

    planned: int
    taken: int

    def text(self) -> str:
        return f"{self.planned / 1024:,.1f} | {self.taken / 1024:,.1f} | {self.planned / self.taken:.3f}"


class OnnxNetwork(nn.Module):
    """The few operators of these files, for the runtimes that start from PyTorch."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        self.ends = model.graph.input[0].name, model.graph.output[0].name
        self.held: dict[str, str] = {}
        for tensor in model.graph.initializer:
            self.held[tensor.name] = f"held{len(self.held)}"
            self.register_buffer(self.held[tensor.name], torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()))

    def forward(self, x: Tensor) -> Tensor:
        values = {self.ends[0]: x} | {name: getattr(self, held) for name, held in self.held.items()}
        for node in self.nodes:
            inputs = [values[name] for name in node.input if name in values]
            values[node.output[0]] = _run(node, inputs)
        return values[self.ends[1]]


def _run(node: onnx.NodeProto, inputs: list[Tensor]) -> Tensor:
    said = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    x, rest = inputs[0], inputs[1:]
    if node.op_type == "Conv":
        top, left, bottom, right = said.get("pads", (0, 0, 0, 0))
        even = (top, left) == (bottom, right)
        x = x if even else functional.pad(x, (left, right, top, bottom))
        bias = rest[1] if len(rest) > 1 else None
        padding = (top, left) if even else 0
        return functional.conv2d(x, rest[0], bias, said["strides"], padding, 1, said.get("group", 1))
    if node.op_type == "MaxPool":
        return functional.max_pool2d(x, said["kernel_shape"], said["strides"], said["pads"][:2])
    if node.op_type == "Gemm":
        return functional.linear(x, *rest)
    plain = {
        "Relu": functional.relu,
        "Clip": functional.relu6,
        "GlobalAveragePool": lambda x: functional.adaptive_avg_pool2d(x, 1),
        "Reshape": lambda x: x.flatten(1),
        "Flatten": lambda x: x.flatten(1),
    }
    return x + rest[0] if node.op_type == "Add" else plain[node.op_type](x)


def redrawn(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with weights N(0, 2 / fan-in), biases N(0, 0.01^2): one that never learned may be all zeros."""
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            scale = math.sqrt(2 / math.prod(tensor.dims[1:])) if len(tensor.dims) > 1 else 0.01
            values = rng.standard_normal(tuple(tensor.dims), dtype=np.float32) * np.float32(scale)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model


def int8_of(model: onnx.ModelProto, inputs: list[Sample]) -> onnx.ModelProto:
    ready = prepare(model)
    calibrator = next(iter(CALIBRATORS.values()))
    return quantise(ready, ranges(collect(ready, inputs), calibrator), types_here())


def litert(network: Network, kind: str, folder: Path) -> Found | str:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType  # pyright: ignore[reportMissingImports]

        path = LiteRt().build(network, "int8" if kind == "int8" else "fp32", folder / f"litert_{kind}").path
    except ImportError:
        return "not installed"
    except EdgewrightError as error:
        return one_line(error, 60)
    interpreter = Interpreter(
        str(path), num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    ends = tuple(
        tuple(part["index"] for part in parts)
        for parts in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    steps = _steps(interpreter)
    made = {name for step in steps for name in step.outputs} | {*ends[0]}
    views = {name: interpreter.tensor(name)() for name in made}
    starts = {name: view.__array_interface__["data"][0] for name, view in views.items()}
    taken = max(starts[name] + view.nbytes for name, view in views.items()) - min(starts.values())
    seen = Activations({name: view.nbytes for name, view in views.items()}, steps, *ends)
    return Found(plan_memory(seen, replace(RULES["litert"], fuse="nothing")).bytes, taken)


def _steps(interpreter) -> tuple[Step, ...]:
    """The operators, each with the scratch that LiteRT has for it: windows of a convolution, sums of a mean."""
    operators = interpreter._get_ops_details()
    shapes = {one["index"]: tuple(map(int, one["shape"])) for one in interpreter.get_tensor_details()}
    named = {int(name) for one in operators for name in (*one["inputs"], *one["outputs"])}
    made = {int(name) for one in operators for name in one["outputs"]} | {
        int(i["index"]) for i in interpreter.get_input_details()
    }
    scratch = sorted(shapes.keys() - named)
    found = []
    for one in operators:
        inputs = tuple(int(name) for name in one["inputs"] if int(name) in made)
        (output,) = (int(name) for name in one["outputs"])
        if one["op_name"] == "CONV_2D":
            windows = (*shapes[output][:3], math.prod(shapes[int(one["inputs"][1])][1:]))
            own = [name for name in scratch if shapes[name] == windows][:1]
        else:
            own = [name for name in scratch if len(shapes[name]) == 1 and one["op_name"] == "MEAN"]
        scratch = [name for name in scratch if name not in own]
        role = IN_PLACE.get(one["op_name"], "other")
        found.append(Step(role, inputs, (output, *own), inputs if role != "other" else ()))
    return tuple(found)


def executorch(network: Network, planned: int) -> Found | str:
    try:
        from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "not installed"
    assert network.module is not None
    with silent():
        exported = torch.export.export(network.module, (network.example(),))
        program = to_edge_transform_and_lower(exported).to_executorch()
    return Found(planned, sum(program.executorch_program.execution_plan[0].non_const_buffer_sizes))


def rows(name: str, model: onnx.ModelProto, kinds: tuple[str, ...], folder: Path) -> list[dict]:
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    rng = np.random.default_rng(0)
    inputs: list[Sample] = [(rng.standard_normal(shape, dtype=np.float32),) for _ in range(2)]
    network = Network(model, OnnxNetwork(model).eval(), calibration=inputs)
    found = []
    for kind in kinds:
        one = int8_of(model, inputs) if kind == "int8" else model
        plan = plan_memory(one)
        by_rules = {name: plan_memory(one, rules).bytes for name, rules in RULES.items()}
        arena = Cpu().profile(one.SerializeToString(), seconds=0, runs=2).arena_bytes()
        arenas: dict[str, Found | str] = {
            "onnxruntime": Found(by_rules["onnxruntime"], arena) if arena else "none",
            "litert": litert(network, kind, folder),
            "executorch": "none" if kind == "int8" else executorch(network, by_rules["executorch"]),
        }
        found.append({"network": name, "type": kind, "least": plan.bound, "plan": plan.bytes, "arenas": arenas})
        show(found[-1])
    return found


def show(row: dict) -> None:
    cells = [row["network"], row["type"], f"{row['least'] / 1024:,.1f}", f"{row['plan'] / 1024:,.1f}"]
    cells += [one.text() if isinstance(one, Found) else f"{one} | - | -" for one in row["arenas"].values()]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", type=Path, help="ONNX files, float32")
    parser.add_argument("--int8", type=Path, help="folder with integer networks, .npz")
    parser.add_argument("--out", type=Path, help="the same as JSON")
    arguments = parser.parse_args()
    print("KB of 1024 bytes; for each runtime: foretold, taken, the one over the other\n")
    heads = " | ".join(f"{name} | taken | ratio" for name in ("ONNX Runtime", "LiteRT", "ExecuTorch"))
    print(f"| network | type | least | plan | {heads} |")
    print("|---" * 13 + "|")
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for path in arguments.networks:
            (folder / path.stem).mkdir()
            found += rows(path.stem, redrawn(onnx.load(path)), ("fp32", "int8"), folder / path.stem)
        for path in sorted(arguments.int8.glob("*.npz")) if arguments.int8 else ():
            (folder / path.stem).mkdir()
            model = onnx.load_from_string(to_onnx(int8_graph(read_plan(path))))
            found += rows(path.stem, model, ("int8",), folder / path.stem)
    ratios = [one.planned / one.taken for row in found for one in row["arenas"].values() if isinstance(one, Found)]
    if ratios:
        print(f"\nforetold over taken: {min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} arenas")
    if arguments.out:
        write_text(arguments.out, json.dumps(found, indent=2, default=vars))


if __name__ == "__main__":
    main()
