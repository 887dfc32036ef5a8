"""Does the file that ships compute what the trained network computes?"""

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from edgewright.core.errors import BadInput, GateFailed
from edgewright.core.result import Export, OutputDifference
from edgewright.device.here.runtime import open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.export.choose.batch import BATCH, BATCHES, takes_batches
from edgewright.export.choose.diverge import LOOKED_AT, diverge, of_module, tapped


def verify(model: nn.Module, onnx_path: Path, samples: torch.Tensor, tolerance: float = 1e-3) -> Export:
    """Run `samples` through the network and through the file, and refuse a file that computes something else.

        max |y_onnx - y_torch| <= tolerance * max(1, max |y_torch|)      and the same class wherever it is clear

    A class is clear where the two largest logits are further apart than twice that bound; nearer ones may be ordered
    by rounding.

    Args:    samples: (N, C, H, W) float32, normalised, N >= 1.   tolerance: relative, unitless.
    Errors:  GateFailed with the figures when the file differs.
    Checked against: a file with one altered weight (tests/export/test_parity.py).
    """
    if len(samples) == 0:
        raise BadInput(f"{onnx_path}: no samples to compare the exported file on")
    expected, found = torch_logits(model, samples), onnx_logits(onnx_path, samples)
    if expected.shape != found.shape:
        raise GateFailed(
            f"{onnx_path}: the exported file gives outputs of shape {found.shape[1:]}, the network {expected.shape[1:]}"
        )
    bound = tolerance * max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(found - expected).max())
    same = expected.argmax(1) == found.argmax(1)
    only = OutputDifference(
        name="logits",
        max_relative_difference=difference / max(float(np.abs(expected).max()), 1e-30),
        max_abs_difference=difference,
    )
    parity = Export(
        outputs=(only,),
        same=100 * float(same.mean()),
        samples=len(samples),
        batch=BATCH if _in_batches(onnx_path, samples, found) else 1,
    )
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * bound if ordered.shape[1] > 1 else np.ones(len(samples), dtype=bool)
    # Written so that a difference that is not a number fails too.
    if not difference <= bound or not same[clear].all():
        raise GateFailed(
            f"{onnx_path}: the exported file differs from the trained network: logits by up to {difference:.3g} "
            f"(allowed {bound:.3g}), the same class on {parity.same:.2f} % of {len(samples)} samples; "
            f"it must not be used{_where(model, onnx_path, samples)}"
        )
    return parity


def _in_batches(onnx_path: Path, samples: torch.Tensor, found: np.ndarray) -> bool:
    few = [samples[i : i + 1].to(torch.float32).contiguous().numpy() for i in range(min(BATCH * BATCHES, len(samples)))]
    return takes_batches(onnx.load(onnx_path), few, found[: len(few)])


def _where(model: nn.Module, onnx_path: Path, samples: torch.Tensor) -> str:
    """Which layer departs first, where the file's nodes are called as the network's modules are."""
    try:
        file = onnx.load(onnx_path)
        found, layers = of_module(model, file)
        session = open_session(tapped(file, [pair.found for pair in found]).SerializeToString(), quiet=True)
        name = session.get_inputs()[0].name
        given = [samples[i : i + 1].to(torch.float32).contiguous().numpy() for i in range(min(LOOKED_AT, len(samples)))]
        told = diverge(found, layers, lambda array: [*map(np.asarray, session.run(None, {name: array}))], given, "fp32")
    except Exception:  # the file is refused all the same
        return ""
    return f"; it {told.text()}" if told else ""


def torch_logits(model: nn.Module, samples: torch.Tensor) -> np.ndarray:
    """The network's outputs (N, classes) in evaluation mode; its own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model(part) for part in samples.split(64)]).cpu().numpy()
    finally:
        for module, training in modes:
            module.training = training


def onnx_logits(onnx_path: Path, samples: torch.Tensor) -> np.ndarray:
    """The file's outputs (N, classes), one sample at a time, as it will be used."""
    session = open_session(onnx_path)
    images = samples.to(torch.float32).contiguous().numpy()
    return np.concatenate([run_session(session, images[i : i + 1]) for i in range(len(images))])
