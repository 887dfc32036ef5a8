"""What an adaptation hands over: weights, an ONNX file held against them; from a run, a folder that is a run again.

An adapted run's folder has a plan.yaml, architecture.json and result.json of its own, so that `predict`, `bench`,
`load_model` and a further `adapt` take it as they take any run.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml
from safetensors.torch import save
from torch import nn

from edgewright.core.cost import Cost
from edgewright.core.environment import versions
from edgewright.core.files import sha256, write_bytes, write_text
from edgewright.core.graph import Graph, count_macs, count_params
from edgewright.core.progress import say
from edgewright.core.result import BlockShare, Export, Metrics, Noise, Result
from edgewright.core.run import RunFolder
from edgewright.device.resolve import make_device
from edgewright.export.deploy import Deployed, deploy, held_out_samples
from edgewright.export.onnx import export_onnx
from edgewright.export.parity import Parity, verify
from edgewright.job.adapt_ground import Ground
from edgewright.space.resolve import make_space


def ship(folder: RunFolder, ground: Ground, metrics: Metrics) -> tuple[Parity, dict[str, Cost]]:
    """Write the files; how far the ONNX file is from PyTorch, and what a run's network costs now (measured).

    Errors: GateFailed where the file computes something else; it is not left behind then.
    """
    model = ground.model.eval()
    state = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}
    write_bytes(folder.model, save(state))
    made = folder.checkpoints / "adapted.onnx"
    if ground.result is None:
        shape = (ground.task.spec.channels, ground.resolution, ground.resolution)
        export_onnx(model, shape, made, {"task": ground.task.spec.model_dump_json()})
        parity = verify(model, made, held_out_samples(ground.task, ground.resolution))
        made.replace(folder.onnx)
        return parity, {}
    deployed = _as_run(folder, ground, model, metrics, made)
    return deployed.parity, deployed.costs


def _as_run(folder: RunFolder, ground: Ground, model: nn.Module, metrics: Metrics, made: Path) -> Deployed:
    assert ground.result is not None
    old, asked, spec = ground.result, ground.asked, ground.task.spec
    plan = RunFolder(Path(asked.source)).read_plan()
    space = make_space(plan.space, spec)
    architecture = space.read({**old.architecture, "classes": len(spec.classes)})
    device = make_device(plan.device, plan.threads)
    metadata = {"architecture": architecture.model_dump_json(), "task": spec.model_dump_json()}
    deployed = deploy(model, space.graph(architecture), ground.task, device, plan.budget, made, metadata)
    if deployed.broken:
        say(f"the adapted network breaks the budget of its run: {'; '.join(deployed.broken)}")
    made.replace(folder.onnx)
    write_text(folder.architecture, architecture.to_json())
    update = {
        "task": spec.model_dump(mode="json"),
        "classes": list(spec.classes),
        "architecture": architecture.model_dump(mode="json"),
        "key": architecture.key(),
        "costs": deployed.costs,
        "runtime_peak_bytes": deployed.runtime_peak,
        "metrics": metrics,
        "latency_noise": Noise(
            runs=deployed.latency.runs,
            reference_ms=deployed.latency.reference_ms,
            reference_drift=deployed.latency.reference_drift,
            noisy=deployed.latency.noisy,
        ),
        "blocks": _blocks(old, space.blocks(architecture)),
        "versions": versions(),
        "export": Export(**deployed.parity.model_dump()),
        "seed": asked.seed,
        "files": {path.name: sha256(path) for path in (folder.onnx, folder.model, folder.architecture)},
    }
    write_text(folder.result, old.model_copy(update=update).to_json())
    update = {"task": asked.task, "seed": asked.seed, "skip_bad": asked.skip_bad, "resolution": None}
    mine = plan.model_copy(update=update)
    text = yaml.safe_dump(mine.model_dump(mode="json", exclude_none=True, by_alias=True), sort_keys=False)
    write_text(folder.plan, text)  # last: what has a plan.yaml is a run
    return deployed


def _blocks(old: Result, blocks: Sequence[tuple[str, Graph]]) -> list[BlockShare]:
    """As the run has them, the head counted anew; the table's share of the latency stays."""
    return [
        share.model_copy(
            update={"macs": count_macs(graph), "params": count_params(graph), "output_shape": graph.output_shape}
        )
        for share, (_, graph) in zip(old.blocks, blocks, strict=True)
    ]
