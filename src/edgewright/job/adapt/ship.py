"""What an adaptation hands over: weights, an ONNX file held against them; from a run, a folder that is a run again.

A compressed run's rewrites go with its network, so that it is rebuilt as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from edgewright.core.cost import Cost
from edgewright.core.files import write_bytes
from edgewright.core.progress import say
from edgewright.core.result import BlockShare, Export, Metrics, Result
from edgewright.core.run import RunFolder
from edgewright.core.weights import write_weights
from edgewright.device.resolve import make_device
from edgewright.export.deploy import Deployed, count, deploy, held_out_samples
from edgewright.export.meaning import Known
from edgewright.export.onnx import export_onnx
from edgewright.export.parity import verify
from edgewright.ir.graph import Graph, count_macs, count_params
from edgewright.job.adapt.ground import AdaptGround
from edgewright.job.hand_over import hand_over
from edgewright.start.resolve import space_of


def ship(folder: RunFolder, ground: AdaptGround, metrics: Metrics) -> tuple[Export, dict[str, Cost]]:
    """Write the files; how far the ONNX file is from PyTorch, and what a run's network costs now (measured).

    Errors: GateFailed where the file computes something else; it is not left behind then.
    """
    model = ground.model.eval()
    write_weights(folder.model, model)
    made = folder.checkpoints / "adapted.onnx"
    if ground.result is None:
        spec = ground.task.spec
        export_onnx(model, spec.signature_at(ground.size), made, {"task": spec.model_dump_json()})
        parity = verify(model, made, held_out_samples(ground.task, ground.size), Known(ground.task.kind))
        made.replace(folder.onnx)
        return parity, {}
    deployed = _as_run(folder, ground, model, metrics, made)
    return deployed.parity, deployed.costs


def _as_run(folder: RunFolder, ground: AdaptGround, model: nn.Module, metrics: Metrics, made: Path) -> Deployed:
    assert ground.result is not None
    old, asked, spec = ground.result, ground.plan, ground.task.spec
    source = RunFolder(Path(asked.source))
    plan = source.read_plan()
    space = space_of(source, old, spec)
    architecture = space.read({**_without_outputs(old.architecture), "outputs": len(spec.names)})
    device = make_device(plan.device, plan.threads)
    metadata = {"architecture": architecture.model_dump_json(), "task": spec.model_dump_json()}
    counted = None
    if source.rewrites.exists():
        write_bytes(folder.rewrites, source.rewrites.read_bytes())
        counted = count(model, ground.example[:1])
    graph = space.graph(architecture)
    deployed = deploy(model, graph, ground.task, device, plan.budget, made, metadata, counted=counted)
    if deployed.broken:
        say(f"the adapted network breaks the budget of its run: {'; '.join(deployed.broken)}")
    made.replace(folder.onnx)
    found = {
        "task": spec.model_dump(mode="json"),
        "costs": deployed.costs,
        "runtime_peak_bytes": deployed.runtime_peak,
        "metrics": metrics,
        "blocks": _blocks(old, space.blocks(architecture)),
        "export": deployed.parity,
        "seed": asked.seed,
    }
    named = {
        "task": asked.task,
        "seed": asked.seed,
        "skip_bad": asked.skip_bad,
        "group": asked.group,
        "resolution": None,
    }
    hand_over(folder, source, architecture, deployed.latency, found=found, asked=named)
    return deployed


def _without_outputs(architecture: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in architecture.items() if name not in ("outputs", "classes")}


def _blocks(old: Result, blocks: Sequence[tuple[str, Graph]]) -> list[BlockShare]:
    """As the run has them, the head counted anew; the table's share of the latency stays. None where it has none."""
    if not old.blocks:
        return []
    return [
        share.model_copy(
            update={
                "macs": count_macs(graph),
                "params": count_params(graph),
                "output_shape": graph.output_shapes[0],
                "more_outputs": graph.output_shapes[1:],
            }
        )
        for share, (_, graph) in zip(old.blocks, blocks, strict=True)
    ]
