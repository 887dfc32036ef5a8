"""From a network to the files that it could ship as: exact rewrites, export, int8, and what each file really costs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from edgewright.compress.base import Plan as Rewriting
from edgewright.compress.base import apply
from edgewright.compress.bits.qat import Rounded, prepared
from edgewright.compress.planner import Method, look
from edgewright.compress.rewrites import merge_linear
from edgewright.compress.rewrites.merge_linear import Merge
from edgewright.compress.worthwhile import worthwhile
from edgewright.core.cost import Cost
from edgewright.core.environment import versions
from edgewright.core.errors import BadInput
from edgewright.core.files import write_bytes
from edgewright.core.progress import say
from edgewright.device.compare import compared
from edgewright.device.measure import TRIES, Latency, Runs
from edgewright.export.choose.candidates import Candidate, Wanted
from edgewright.export.choose.choice import Choice, NothingFits, choose
from edgewright.export.deploy import file_costs
from edgewright.export.int8.calibrators import CALIBRATORS
from edgewright.export.int8.learned import quantise_learned
from edgewright.export.int8.quantise import collect, prepare, quantise, ranges, types_here
from edgewright.export.onnx import export_onnx
from edgewright.export.runtimes.base import Kind, Network
from edgewright.export.runtimes.resolve import make_runtimes
from edgewright.export.ship.provenance import signed
from edgewright.export.ship.source import read_onnx
from edgewright.job.compress.found import File
from edgewright.job.compress.ground import CompressGround, session_call
from edgewright.job.compress.shrink import measuring

FREE = ("remove_identity", "fold_batch_norm")
SECONDS = 20.0  # about what one measurement may take
RUNS = Runs(most=300, fewest=40, seconds=SECONDS)
EXACT = "exact rewrites"  # what was done to a network that needed no training
KEEPS = "keeps all that was asked"
SMALLER = 0.99  # of a size is smaller
LEARNED = "U8S8, learned steps and ranges"
QUICK = 4  # images that int8 ranges are guessed from where only time matters


def finished(
    ground: CompressGround, network: nn.Module, merge: tuple[str, ...], blocks: tuple[str, ...] = ()
) -> tuple[nn.Module, Rewriting]:
    """A network as it ships, each step checked: identities and norms gone, the layers named in `merge` as one, and
    `blocks`, which have lost their activations, whatever multiply-adds that takes."""
    methods: list[str | Method] = list(FREE)
    if blocks:
        methods.append(partial(merge_linear.find, most_macs=math.inf, only=blocks))
    if merge:
        methods.append(partial(merge_linear.find, only=merge))
    found = look(network, ground.example, methods)
    return apply(network, found, ground.checked), found


def paying_merges(ground: CompressGround) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Layers that are surely faster merged, nothing else being changed; and a sentence for each that are not."""
    found = look(ground.model, ground.example, (*FREE, "merge_linear"))
    found = worthwhile(ground.model, found, measuring(ground))
    kept = [name for rewrite in found.rewrites if isinstance(rewrite, Merge) for name in rewrite.layers]
    return tuple(kept), tuple(f"{', '.join(one.layers)} stays as it is: {one.why}" for one in found.declined)


def timed(ground: CompressGround, files: Sequence[Path]) -> list[Latency]:
    """The latency of every file, in turns; by a law where nothing can be measured."""
    return ground.device.measure(files, RUNS.model_copy(update={"tries": TRIES}))


def as_int8(ground: CompressGround, network: nn.Module) -> Rounded:
    """A finished network that is rounded wherever its int8 file will be, ready to learn.

    Errors: BadInput for an operator that cannot be rounded, and on processors whose int8 files are of other types.
    """
    types = types_here()
    if types.signed:
        raise BadInput(f"networks learn as U8S8 files here, and this processor's are {types.text()}")
    few = torch.from_numpy(np.concatenate([x for (x,) in ground.samples.calibration]))
    return prepared(network, few, bits=7 if types.narrow else 8)


def files_of(
    ground: CompressGround, network: nn.Module, counts: Rewriting, folder: Path, rounded: Rounded | None = None
) -> list[File]:
    """Every type of a finished network as a file, measured in turns with the file as it was; mildest type first.

    counts: the plan whose `after` counts the network.   rounded: the same network as it learned to be int8, whose steps
    and ranges are the int8 file's. What loses more than is left of the allowed drop is refused, and so is an int8 file
    that is not surely faster than the float one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    exported = folder / "exported.onnx"
    export_onnx(network, ground.task.spec.signature_at(ground.size), exported, ground.metadata)
    figure = ground.figure(session_call(exported))
    left = figure - ground.floor + 1e-9
    kinds = ground.kinds if rounded or left >= 0 else ground.kinds[:1]  # the others have nothing to lose
    choice = _choice(ground, _network(ground, exported, rounded), kinds, max(0.0, left), folder)
    rows = [row for row in choice.candidates if row.built is not None and row.gate is not None]
    for row in choice.candidates:
        if row not in rows and row.kind in kinds:
            say(f"{row.kind} cannot be made: {row.refused}")
    own, *latencies = timed(ground, [ground.own, *(row.built.path for row in rows if row.built is not None)])
    return [
        _file(ground, row, counts, figure if row.kind == "fp32" else None, latency, own)
        for row, latency in zip(rows, latencies, strict=True)
    ]


def _file(
    ground: CompressGround, row: Candidate, counts: Rewriting, figure: float | None, latency: Latency, own: Latency
) -> File:
    """A candidate as a file that is signed and judged. figure: of the float one; others have their gate's."""
    assert row.gate is not None and row.built is not None
    reached = (row.gate.accuracy or 0.0) if figure is None else figure
    note = row.built.note or (LEARNED if row.kind == "int8" else "")
    sign(ground, row.built.path, row.kind, note, reached, latency)
    lost = f"loses {ground.figure_before - reached:.2f} points on val, {ground.plan.max_drop:g} allowed"
    return File(
        kind=row.kind,
        path=row.built.path,
        costs=file_costs(ground.device, row.built.path, latency, counts.after.macs, counts.after.params),
        figure=reached,
        latency=latency,
        own=own,
        ratio=compared(latency, own) if "measure" in ground.device.can else None,
        note=note,
        refused=lost if reached < ground.floor - 1e-9 else row.refused,
        in_float=len(row.quantised.in_float) if row.quantised else 0,
    )


def sign(ground: CompressGround, path: Path, kind: Kind, note: str, figure: float, latency: Latency) -> None:
    """Write into a file where it came from and what was found out of it, as `edgewright show` reads it."""
    figures = {"latency_ms": latency.median_ms, "p90_ms": latency.p90_ms, "metric": figure}
    measured = {"runs": latency.runs, "threads": ground.threads, "cpu": ground.device.identity().get("cpu")}
    facts = {
        **ground.origin,
        "made_by": "compress",
        "winner": {"runtime": "onnxruntime", "type": kind, **figures},
        "note": note,
        "gate": {"source_accuracy": ground.figure_before, "decides": ground.task.spec.decides},
        "max_drop": ground.plan.max_drop,
        "target": ground.device.name,
        "latency_of": "measured" if latency.how == "measured" else "law",
        "measured": measured if latency.how == "measured" else None,
        "versions": versions(),
    }
    write_bytes(path, signed(path, ground.metadata, facts))


def _network(ground: CompressGround, exported: Path, rounded: Rounded | None) -> Network:
    """What files are built from; the int8 one is there already where it was learned."""
    found = Network(read_onnx(exported), calibration=ground.samples.calibration)
    if rounded is None:
        return found
    few = torch.from_numpy(np.concatenate([x for (x,) in ground.samples.calibration[:QUICK]]))
    plain, int8 = quantise_learned(rounded, few)
    return replace(found, int8=int8, int8_from=prepare(plain))


def _choice(ground: CompressGround, network: Network, kinds: Sequence[Kind], allowed: float, folder: Path) -> Choice:
    """ONNX Runtime's files of all types that are asked for, held against the float one."""
    try:
        return choose(
            network,
            ground.samples,
            folder,
            wanted=Wanted(make_runtimes(["onnxruntime"]), kinds),
            max_drop=min(100.0, allowed),
            device=ground.device,
            runs=RUNS,
        )
    except NothingFits as error:
        return error.choice


def quick_costs(
    ground: CompressGround, done: nn.Module, counts: Rewriting, kinds: Sequence[Kind], folder: Path
) -> dict[Kind, dict[str, Cost]]:
    """What a finished network would cost as a file of each of some types, whatever it has learned; int8 only where it
    is surely faster than float, as otherwise it is not handed out.

    kinds: float among them.   counts: as of `files_of`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "probe.onnx"
    export_onnx(done, ground.task.spec.signature_at(ground.size), path)
    files: dict[Kind, Path] = {kind: path if kind == "fp32" else quick_int8(ground, path) for kind in kinds}
    latencies = dict(zip(files, timed(ground, list(files.values())), strict=True))
    found = {}
    for kind, file in files.items():
        latency = latencies[kind]
        sign(ground, file, kind, LEARNED, 100.0, latency)  # as long as what will stand there
        if kind == "fp32" or compared(latency, latencies["fp32"]).surely_faster:
            found[kind] = file_costs(ground.device, file, latency, counts.after.macs, counts.after.params)
    return found


def quick_int8(ground: CompressGround, path: Path) -> Path:
    """The file in int8 with ranges from a few images: as quick as any, if not as right."""
    prepared = prepare(onnx.load(path))
    covered = ranges(collect(prepared, ground.samples.calibration[:QUICK]), CALIBRATORS["minmax"])
    made = path.with_name("probe-int8.onnx")
    write_bytes(made, quantise(prepared, covered, types_here()).SerializeToString())
    return made


def refusal(ground: CompressGround, file: File) -> str | None:
    """Why a file is not what was asked for, or None: refused, over a ceiling, or neither faster nor smaller."""
    if file.refused:
        return file.refused
    broken = ground.budget.broken(file.costs)
    if broken:
        return "; ".join(broken)
    return unworthy(ground, file)


def unworthy(ground: CompressGround, file: File) -> str | None:
    """Why a file is no better than the one it comes from, where it is not."""
    faster = file.ratio.surely_faster if file.ratio else True
    if faster or file.costs["size"].value < SMALLER * size_before(ground):
        return None
    return f"not really faster ({file.ratio.text() if file.ratio else ''} of its time) and not really smaller"


def size_before(ground: CompressGround) -> float:
    return ground.device.file_costs(ground.own, ground.counts[1])["size"].value


def as_it_was(ground: CompressGround) -> File:
    """The file that is compared with, measured."""
    (latency,) = timed(ground, [ground.own])
    float_file = ground.source.folder.float_onnx
    kind: Kind = "int8" if ground.own != float_file and float_file.exists() else "fp32"
    costs = file_costs(ground.device, ground.own, latency, *ground.counts)
    return File(kind, ground.own, costs, ground.figure_before, latency, latency, None)
