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
from edgewright.core.quiet import silent
from edgewright.export.onnx import fold_batch_norms, prepared
from edgewright.export.runtimes.base import NEEDS_MODULE, Built, Kind, Network, Program, Runtime, Unfit, fixed_shape

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
        example = (torch.zeros(network.shape),)
        assert network.module is not None
        with silent():
            try:
                model = prepared(network.module)
                fold_batch_norms(model, example[0])
                if kind == "int8":
                    model = _quantised(model, example, network.calibration)
                program, note = _lowered(model, example)
            except Unfit:
                raise
            except Exception as error:  # the exporter's errors are of many kinds
                raise Unfit(f"ExecuTorch cannot take this network ({one_line(error)})") from None
        path = stem.with_name(stem.name + ".pte")
        write_bytes(path, program)
        return Built.of(path, note=note)

    def open(self, path: Path, threads: int = 1, shape: tuple[int, ...] | None = None) -> Program:
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        with silent():
            from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool  # pyright: ignore[reportMissingImports]
            from executorch.runtime import Runtime as Engine  # pyright: ignore[reportMissingImports]
            from executorch.runtime import Verification  # pyright: ignore[reportMissingImports]

            _unsafe_reset_threadpool(threads)
            try:
                program = Engine.get().load_program(path, verification=Verification.InternalConsistency)
                method = program.load_method("forward")
            except Exception as error:
                raise BadInput(f"{path}: ExecuTorch cannot open it ({one_line(error)})") from None
        if method is None:
            raise BadInput(f"{path}: holds no method 'forward'")
        found = fixed_shape(list(method.metadata.input_tensor_meta(0).sizes()), shape, str(path))

        def call(array: np.ndarray) -> np.ndarray:
            return method.execute([torch.from_numpy(array)])[0].numpy().copy()

        # The method's memory belongs to the program, which must live as long.
        call.program = program  # pyright: ignore[reportFunctionMemberAccess]
        return Program(call, found)

    def usage(self, file: str, kind: Kind) -> list[str]:
        return [
            "import torch",
            "from executorch.runtime import Runtime",
            f'program = Runtime.get().load_program("{file}")',
            'scores = program.load_method("forward").execute([torch.from_numpy(x)])[0].numpy()',
        ]


def _quantised(model: nn.Module, example: tuple[torch.Tensor], calibration: Any) -> nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # pyright: ignore[reportMissingImports]
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # pyright: ignore[reportMissingImports]

    quantiser = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    watched = prepare_pt2e(torch.export.export(model, example).module(), quantiser)
    with torch.no_grad():
        for array in calibration:
            watched(torch.from_numpy(array))
    return convert_pt2e(watched)


def _lowered(model: nn.Module, example: tuple[torch.Tensor]) -> tuple[bytes, str]:
    """The program, and which share of its operators XNNPACK took."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # pyright: ignore[reportMissingImports]
    from executorch.devtools.backend_debug import get_delegation_info  # pyright: ignore[reportMissingImports]
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

    edge = to_edge_transform_and_lower(torch.export.export(model, example), partitioner=[XnnpackPartitioner()])
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
