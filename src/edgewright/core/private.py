"""Names that other libraries do not promise to keep, all of them: what each is for, and what is done without it.

- `torch.ops.mkldnn._linear_pointwise`, for `backward.kernels`: products by oneDNN, where that is quicker; without it,
  torch's own products.
- `onnxruntime.quantization.registry`, for `export.int8.quantise`: the operators that int8 files may hold; without it,
  those of version 1.29.
- `torch.onnx._internal._lazy_import`, for `export.onnx`: onnxscript's operators, listed once for all exports
  of a process; without it, each export parses their sources anew, which is half of its time for a small network.
- `portable_lib._unsafe_reset_threadpool`, for the ExecuTorch adapter: how many threads a program takes; without it,
  its own number, with a word.

Nothing else of the package may reach for a name that begins with an underscore in another library
(`tests/test_house.py`); each is tested with the name gone (`tests/core/test_private.py`).
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgewright.core.progress import say

if TYPE_CHECKING:
    from torch import Tensor

# What ONNX Runtime 1.29 can quantise, from its two registries.
QUANTISABLE = (
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "CumSum",
    "EmbedLayerNormalization", "Flatten", "Gather", "GatherElements", "Gemm", "GlobalAveragePool",
    "InstanceNormalization", "LayerNormalization", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape",
    "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "TopK", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip


def linear_by_onednn() -> "Callable[[Tensor, Tensor], Tensor] | None":
    """x w^T by oneDNN, of float32 matrices on the CPU; None where torch has no such operator, or has it otherwise."""
    import torch

    def found(x: "Tensor", w: "Tensor") -> "Tensor":
        operator: Any = torch.ops.mkldnn._linear_pointwise
        return operator(x, w, None, "none", [], "")

    if not torch.backends.mkldnn.is_available():
        return None
    x, w = (torch.arange(3.0 * rows, dtype=torch.float32, device="cpu").view(rows, 3) for rows in (2, 4))
    try:
        return found if torch.equal(found(x, w), x @ w.T) else None
    except (AttributeError, RuntimeError, TypeError):  # a torch in which it is called otherwise
        return None


def quantisable() -> list[str]:
    """The operators that ONNX Runtime's quantiser has a way for."""
    try:
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
    except ImportError:
        return list(QUANTISABLE)
    return sorted({*QDQRegistry, *QLinearOpsRegistry})


@contextmanager
def operators_listed_once() -> Iterator[None]:
    """Exports within take the operators that the first of them listed."""
    try:
        from torch.onnx._internal import _lazy_import

        apis: Any = _lazy_import.onnxscript_apis  # pyright: ignore[reportPrivateImportUsage]
        listing = apis.get_torchlib_ops
    except (ImportError, AttributeError):
        yield
        return
    apis.get_torchlib_ops = functools.partial(_listed, listing)
    try:
        yield
    finally:
        apis.get_torchlib_ops = listing


@functools.cache
def _listed(listing: Callable[[], list[Any]]) -> tuple[Any, ...]:
    return tuple(listing())


def executorch_threads(portable_lib: Any, threads: int) -> bool:
    """Have ExecuTorch's programs take so many threads; False, with a word to the user, where it cannot be told.

    portable_lib: `executorch.extension.pybindings.portable_lib`.
    """
    set_threads = getattr(portable_lib, "_unsafe_reset_threadpool", None)
    if set_threads is None:
        say(f"this ExecuTorch cannot be told to take {threads} thread(s); its times are for as many as it takes")
        return False
    set_threads(threads)
    return True
