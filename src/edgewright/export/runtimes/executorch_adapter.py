"""ExecuTorch with XNNPACK: a .pte made from the PyTorch network, always partitioned.

Without a partitioner ExecuTorch runs its portable kernels, which are some hundred times slower and no use on a
processor; a network whose convolutions or matrix products XNNPACK did not take is therefore refused here. How much it
took is said beside the candidate.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from edgewright.core.errors import BadInput, one_line
from edgewright.core.files import write_bytes
from edgewright.core.private import executorch_threads
from edgewright.core.quiet import silent
from edgewright.core.tensors import TensorSpec, ask
from edgewright.export.onnx import arguments, fold_batch_norms, prepared
from edgewright.export.running import Sample, tree_of
from edgewright.export.runtimes.base import (
    NEEDS_MODULE,
    Asked,
    Built,
    Kind,
    Network,
    Program,
    Runtime,
    Unfit,
    fixed,
)

HEAVY = ("conv", "mm", "linear", "matmul")  # parts of the names of operators that must not fall back


class ExecuTorch(Runtime):
    name: ClassVar[str] = "executorch"
    library: ClassVar[str] = "executorch"
    extra: ClassVar[str | None] = "executorch"
    suffixes: ClassVar[tuple[str, ...]] = (".pte",)
    summary: ClassVar[str] = "ExecuTorch, XNNPACK delegate; fp32 and int8 (symmetric, per channel)."
    source: ClassVar[str] = "https://github.com/pytorch/executorch"

    def refusal(self, kind: Kind, network: Network) -> str | None:
        if network.module is None:
            return NEEDS_MODULE
        if kind == "bf16":
            return "XNNPACK's convolutions are not exported in bf16"
        return None

    def build(self, network: Network, kind: Kind, stem: Path) -> Built:
        assert network.module is not None
        with silent():
            try:
                model = prepared(network.module)
                fold_batch_norms(model, network.example())
                if kind == "int8":
                    model = _quantised(model, network)
                program, note = _lowered(model, network)
            except Unfit:
                raise
            except Exception as error:  # the exporter's errors are of many kinds
                raise Unfit(f"ExecuTorch cannot take this network ({one_line(error)})") from None
        path = stem.with_name(stem.name + ".pte")
        write_bytes(path, program)
        return Built.of(path, note=note)

    def open(self, path: Path, threads: int = 1, shape: Asked = None) -> Program:
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        with silent():
            from executorch.extension.pybindings import portable_lib  # pyright: ignore[reportMissingImports]
            from executorch.runtime import Runtime as Engine  # pyright: ignore[reportMissingImports]
            from executorch.runtime import Verification  # pyright: ignore[reportMissingImports]

            executorch_threads(portable_lib, threads)
            try:
                program = Engine.get().load_program(path, verification=Verification.InternalConsistency)
                method = program.load_method("forward")
            except Exception as error:
                raise BadInput(f"{path}: ExecuTorch cannot open it ({one_line(error)})") from None
        if method is None:
            raise BadInput(f"{path}: holds no method 'forward'")
        taken = method.metadata
        found = [_spec(taken.input_tensor_meta(index), index) for index in range(taken.num_inputs())]

        def call(sample: Sample) -> list[np.ndarray]:
            try:
                given = method.execute([torch.from_numpy(np.asarray(array, order="C")) for array in sample])
            except RuntimeError as error:
                raise Unfit(f"ExecuTorch fails when it runs it ({one_line(error)})") from None
            return [tensor.numpy().copy() for tensor in given]

        # The method's memory belongs to the program, which must live as long.
        call.program = program  # pyright: ignore[reportFunctionMemberAccess]
        return Program(call, fixed(found, shape, str(path)))

    def usage(self, file: str, kind: Kind) -> list[str]:
        return [
            "import torch",
            "from executorch.runtime import Runtime",
            f'program = Runtime.get().load_program("{file}")',
            'found = program.load_method("forward").execute([torch.from_numpy(x) for x in inputs])',
            "outputs = [tensor.numpy() for tensor in found]",
        ]


SCALARS = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64",
           11: "bool"}  # fmt: skip


def _spec(meta: Any, index: int) -> TensorSpec:
    """An input as the program has it: by its place, for it has no name."""
    dtype = SCALARS.get(int(meta.dtype()), "float32")
    return TensorSpec(name=str(index), shape=tuple(meta.sizes()), dtype=dtype)


def _quantised(model: nn.Module, network: Network) -> nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # pyright: ignore[reportMissingImports]
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # pyright: ignore[reportMissingImports]

    quantiser = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    args, kwargs = arguments(network.example())
    watched, names = prepare_pt2e(torch.export.export(model, args, kwargs).module(), quantiser), network.names
    with torch.no_grad():
        for sample in network.calibration:
            ask(watched, tree_of(names, sample))
    return convert_pt2e(watched)


def _lowered(model: nn.Module, network: Network) -> tuple[bytes, str]:
    """The program, and which share of its operators XNNPACK took."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # pyright: ignore[reportMissingImports]
    from executorch.devtools.backend_debug import get_delegation_info  # pyright: ignore[reportMissingImports]
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

    args, kwargs = arguments(network.example())
    edge = to_edge_transform_and_lower(torch.export.export(model, args, kwargs), partitioner=[XnnpackPartitioner()])
    info = get_delegation_info(edge.exported_program().graph_module)
    rows = {name: row for name, row in info.delegation_by_operator.items() if name != "getitem"}
    left = [name for name, row in rows.items() if row.non_delegated]
    heavy = [name for name in left if any(part in name for part in HEAVY)]
    taken = sum(row.delegated for row in rows.values())
    total = taken + sum(row.non_delegated for row in rows.values())
    if heavy or not taken:
        what = ", ".join(heavy) or "anything"
        raise Unfit(f"XNNPACK does not take {what}; the portable kernels are hundreds of times slower")
    note = f"XNNPACK took {taken} of {total} operators" + (f", not {', '.join(left)}" if left else "")
    return edge.to_executorch().buffer, note
