"""A folder that is a run again: what `adapt` and `compress` leave, from the run that their network came from.

It has a plan.yaml, architecture.json and result.json of its own, so that `predict`, `bench`, `export`, `load_model`
and a further `adapt` or `compress` take it as they take any run.
"""

from typing import Any

import yaml

from edgewright.core.architecture import Architecture
from edgewright.core.environment import versions
from edgewright.core.files import sha256, write_text
from edgewright.core.result import Noise
from edgewright.core.run import RunFolder
from edgewright.device.measure import Latency
from edgewright.start.sources.run import keep


def hand_over(
    folder: RunFolder,
    source: RunFolder,
    architecture: Architecture,
    latency: Latency,
    *,
    found: dict[str, Any],
    asked: dict[str, Any],
) -> None:
    """Write architecture.json, result.json and plan.yaml; models, and compress.json where there is one, are there.

    found: fields of the result that are not the source's.   asked: the same of the plan.
    """
    write_text(folder.architecture, architecture.to_json())
    if source.start.is_dir():
        keep(RunFolder(source.start), folder)
    written = (folder.onnx, folder.model, folder.architecture, folder.rewrites, folder.float_onnx)
    update = {
        "architecture": architecture.model_dump(mode="json"),
        "key": architecture.key(),
        "latency_noise": noise_of(latency),
        "versions": versions(),
        "files": {path.name: sha256(path) for path in written if path.exists()},
        **found,
    }
    write_text(folder.result, source.read_result().model_copy(update=update).to_json())
    plan = source.read_plan().model_copy(update=asked)
    text = yaml.safe_dump(plan.model_dump(mode="json", exclude_none=True, by_alias=True), sort_keys=False)
    write_text(folder.plan, text)  # last: what has a plan.yaml is a run


def noise_of(latency: Latency) -> Noise:
    return Noise(
        runs=latency.runs,
        reference_ms=latency.reference_ms,
        reference_drift=latency.reference_drift,
        noisy=latency.noisy,
    )
