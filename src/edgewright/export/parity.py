"""Does the file that ships compute what the trained network computes?"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from edgewright.core.errors import BadInput, EdgewrightError, GateFailed
from edgewright.core.result import Export, OutputDifference
from edgewright.core.tensors import ask, leaves, mapped, named, rows
from edgewright.device.here.runtime import open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.export.choose.batch import BATCH, BATCHES, takes_batches
from edgewright.export.choose.diverge import LOOKED_AT, diverge, of_module, tapped
from edgewright.export.gates import Gate, compare
from edgewright.export.graph import inputs_of, outputs_of
from edgewright.export.meaning import Meaning
from edgewright.export.running import Answers, Sample, Says, call_of, gathered, tree_of


def verify(model: nn.Module, path: Path, samples: Any, meaning: Meaning | None = None) -> Export:
    """Run `samples` through the network and through the file, and refuse a file that computes something else.

        max |y_onnx - y_torch| <= 1e-3 max |y_torch|      of every output, and what it says is kept (see `gates`)

    Args:    samples: a tree of inputs, (N, ...), normalised, N >= 1.   meaning: of the outputs, where it is known.
    Errors:  GateFailed with the figures when the file differs.
    Checked against: a file with one altered weight (tests/export/test_parity.py).
    """
    if rows(samples) == 0:
        raise BadInput(f"{path}: no samples to compare the exported file on")
    file = onnx.load(path)
    names, one_by_one = [spec.name for spec in outputs_of(file)], samples_of_tree(samples, file)
    expected, found = torch_outputs(model, samples), onnx_outputs(path, samples)
    gate = compare(names, expected, found, meaning)
    refused = gate.refusal("fp32", 100.0)
    if refused is not None:
        raise GateFailed(
            f"{path}: the exported file differs from the trained network on {gate.samples} samples: {refused}; it must "
            f"not be used{_where(model, file, one_by_one)}"
        )
    few = one_by_one[: BATCH * BATCHES]
    whole = takes_batches(file, few, [values[: len(few)] for values in found])
    return told(gate, BATCH if whole else 1)


def told(gate: Gate, batch: int | None = None) -> Export:
    """A gate as a run's result has it."""
    outputs = tuple(
        OutputDifference(
            name=output.name,
            max_relative_difference=output.max_relative_difference,
            max_abs_difference=output.max_abs_difference,
        )
        for output in gate.outputs
    )
    return Export(outputs=outputs, same=gate.same, samples=gate.samples, batch=batch)


def samples_of_tree(samples: Any, file: onnx.ModelProto) -> list[Sample]:
    """A tree of inputs (N, ...), sample by sample as the file takes them."""
    taken = inputs_of(file)
    arrays = [values.detach().cpu().contiguous().numpy() for values in named(samples, taken).values()]
    arrays = [values.astype(spec.dtype) for values, spec in zip(arrays, taken, strict=True)]
    return [[values[index : index + 1] for values in arrays] for index in range(len(arrays[0]))]


def _where(model: nn.Module, file: onnx.ModelProto, samples: list[Sample]) -> str:
    """Which layer departs first, where the file's nodes are called as the network's modules are."""
    try:
        found, layers = of_module(model, file)
        call = call_of(tapped(file, [pair.found for pair in found]))
        divergence = diverge(found, layers, call, samples[:LOOKED_AT], "fp32")
    except EdgewrightError as error:  # the file is refused all the same
        return f" (where it parts cannot be shown: {error})"
    return f"; it {divergence.text()}" if divergence else ""


def torch_outputs(model: nn.Module, samples: Any) -> list[Answers]:
    """All outputs (N, ...) in evaluation mode; the network's own mode comes back afterwards."""
    with _evaluating(model):
        parts = [leaves(ask(model, part)) for part in _split(samples)]
    return [torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)]


def torch_call(model: nn.Module, names: Sequence[str]) -> Says:
    """The network as a function of one sample, whose arrays are called `names`."""
    return lambda sample: [np.asarray(values) for values in torch_outputs(model, tree_of(names, sample))]


def onnx_outputs(path: Path, samples: Any) -> list[Answers]:
    """All outputs of the file, one sample at a time, as it will be used."""
    session = open_session(path)
    return gathered(run_session(session, sample) for sample in samples_of_tree(samples, onnx.load(path)))


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _split(samples: Any) -> Iterator[Any]:
    """In batches that take little memory."""
    for start in range(0, rows(samples), 64):
        yield mapped(lambda values, start=start: values[start : start + 64], samples)
