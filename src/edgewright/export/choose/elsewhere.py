"""Which file for a board that is not here? Gates on this machine; limits and latency by what the target's file says."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from edgewright.core.cost import show
from edgewright.core.errors import BadInput
from edgewright.device.base import Device
from edgewright.export.choose.candidates import ANY, Candidate, Judge, Wanted, build_all
from edgewright.export.choose.choice import Choice, NothingFits, lost
from edgewright.export.choose.samples import Samples
from edgewright.export.int8.quantise import Int8Types
from edgewright.export.running import Says
from edgewright.export.runtimes.base import NEEDS_MODULE, Network
from edgewright.export.runtimes.resolve import runtimes as known_runtimes

# Boards' own tools that convert a file of ours; of another name, ONNX is taken to be what it reads.
CONVERTED = {"x-cube-ai": ("onnxruntime", "litert"), "tflite-micro": ("litert",)}


def choose_elsewhere(
    network: Network,
    samples: Samples,
    folder: Path,
    *,
    device: Device,
    wanted: Wanted = ANY,
    source: Says | None = None,
    max_drop: float = 1.0,
) -> Choice:
    """Build what the device takes, hold it against its source here, and pick by the device's law, else by size.

    Nothing is measured: a latency is the law's, which holds for the first of the device's types, or it is not known.
    int8 is S8S8, which is what the boards' kernels multiply.

    Errors: BadInput for an operator that the device cannot run, with its node, and where nothing that was asked for
        runs there; NothingFits where every candidate loses too much or does not fit the device's memories.
    """
    refuse_operators(network.model, device)
    takes = files_for(device)
    pairs = wanted.inside(takes, device.types).pairs()
    if not pairs:
        known = f"{', '.join(device.types)} in files of {', '.join(takes)}"
        raise BadInput(f"{device.name} takes {known}; nothing of that was asked for")
    if network.module is None and not any(runtime.from_onnx for runtime, _ in pairs):
        names = dict.fromkeys(runtime.name for runtime, _ in pairs)
        raise BadInput(f"{device.name} takes files of {' and '.join(names)}, {NEEDS_MODULE}")
    judge = Judge(network, samples, max_drop, source)
    rows = build_all(pairs, network, judge, folder, types=Int8Types(signed=True))
    rows = [_held(row, device, network) for row in rows]
    return _picked(rows, device, max_drop)


def files_for(device: Device) -> tuple[str, ...]:
    """The runtimes whose files the device runs, or its own tool converts."""
    if device.runtime in known_runtimes():
        return (device.runtime,)
    return CONVERTED.get(device.runtime, ("onnxruntime",))


def refuse_operators(model: onnx.ModelProto, device: Device) -> None:
    """Raise BadInput for the first node that the device cannot run."""
    for sentence in device.forbidden(model):
        raise BadInput(sentence)


def _held(row: Candidate, device: Device, network: Network) -> Candidate:
    """With the law's latency, and refused where it does not fit."""
    built = row.built
    if built is None:
        return row
    whole = row.quantised is None or not row.quantised.in_float  # the law is of a network of one type
    if whole and (latency := device.predict(network.model.SerializeToString(), row.kind)):
        row = replace(row, latency_ms=latency.median_ms)
    if row.refused is not None:
        return row
    model = network.model if row.quantised is None else row.quantised.model
    why = device.refusals(model, kind=row.kind, size_bytes=built.size_bytes)
    return replace(row, refused="; ".join(why)) if why else row


def _picked(rows: Sequence[Candidate], device: Device, max_drop: float) -> Choice:
    def order(row: Candidate) -> tuple[float, int]:
        latency = float("inf") if row.latency_ms is None else row.latency_ms
        return latency, row.built.size_bytes if row.built else 0

    fit = sorted((row for row in rows if row.refused is None), key=order)
    how = "law" if "predict" in device.can else "unknown"
    choice = Choice(tuple(rows), fit[0] if fit else None, "", "", 0.0, 0, target=device.name, latency_of=how)
    if not fit:
        reasons = "; ".join(f"{row.name}: {row.refused}" for row in rows)
        why = f"nothing can be handed out for {device.name} with a drop of {max_drop:g} ({reasons})"
        raise NothingFits(replace(choice, why=why))
    winner = fit[0]
    assert winner.gate and winner.built
    size = show("size", winner.built.size_bytes)
    if winner.latency_ms is None:
        why = f"the smallest file that {device.name} takes, {size}; how fast it is there is not known"
    else:
        took = show("latency", winner.latency_ms)
        why = f"the quickest by {device.name}'s law, {took}, which is a model's figure, and {size}"
    return replace(choice, why=f"{winner.name} is {why}; {lost(winner.gate)}")
