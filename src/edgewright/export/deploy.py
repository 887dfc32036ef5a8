"""Export a trained network, hold the file against its source and the budget, and cost what ships."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgewright.compress.planner import look
from edgewright.core.cost import Budget, Cost, cost
from edgewright.core.result import Export
from edgewright.core.tensors import Size, sides
from edgewright.device.base import Device
from edgewright.device.measure import TRIES, Latency, Runs
from edgewright.export.meaning import Known
from edgewright.export.onnx import export_onnx
from edgewright.export.parity import verify
from edgewright.ir.graph import Graph
from edgewright.task.base import Task, normalise

RUNS = 300
NUM_SAMPLES = 256


@dataclass(frozen=True)
class Deployed:
    """An exported file and what was found out about it; `broken` says which ceilings it breaks, if any.

    runtime_peak: bytes of activations that the runtime's allocator held at most; None where the runtime does not say.
    """

    path: Path
    costs: dict[str, Cost]
    parity: Export
    latency: Latency
    broken: list[str]
    runtime_peak: int | None


def deploy(
    model: nn.Module,
    graph: Graph,
    task: Task,
    device: Device,
    budget: Budget,
    path: Path,
    metadata: dict[str, str],
    *,
    counted: tuple[int, int] | None = None,
) -> Deployed:
    """Export `model` to `path`, compare it with PyTorch on held-out samples, and cost the file itself.

    counted: multiply-adds and parameters of a network that was compressed, and is no longer what `graph` says.
    Raises GateFailed when the exported file computes something else.
    """
    taken = [graph.shapes[tensor] for tensor in graph.inputs]
    size = next(sides(shape[1:]) for shape in taken if len(shape) == 3)  # beside a map there may be vectors
    export_onnx(model, task.spec.signature_at(size), path, metadata)
    parity = verify(model, path, held_out_samples(task, size), Known(task.kind))
    (latency,) = device.measure([path], Runs(most=RUNS, tries=TRIES))
    if counted is None:
        costs = {"latency": latency.cost(), **device.costs(graph), **device.shipped(path)}
    else:
        costs = file_costs(device, path, latency, *counted)
    return Deployed(path, costs, parity, latency, budget.broken(costs), device.runtime_peak(path))


def count(model: nn.Module, example: torch.Tensor) -> tuple[int, int]:
    """Multiply-adds and parameters of a network as it ships, its batch norms folded; example: batch 1."""
    after = look(model, example, ("remove_identity", "fold_batch_norm")).after
    return after.macs, after.params


def file_costs(device: Device, path: Path, latency: Latency, macs: int, params: int) -> dict[str, Cost]:
    """What a file costs where it must run; on a board its numbers count as they will be there."""
    own = {
        "latency": latency.cost(),
        "macs": cost("macs", macs, "analytic"),
        "params": cost("params", params, "analytic"),
    }
    return {**own, **device.file_costs(path, params)}


def held_out_samples(task: Task, size: Size) -> Any:
    """Up to NUM_SAMPLES test samples, evenly spread, as the network sees them."""
    count = min(NUM_SAMPLES, len(task.test))
    chosen = torch.linspace(0, len(task.test) - 1, count).long()
    return normalise(task.test.take(chosen).inputs, task.spec, size)
