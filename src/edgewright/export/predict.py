"""What a run's network says of files, from the run folder alone, through the file that ships."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.core.tensors import as_tree, leaves
from edgewright.device.here.runtime import open_session
from edgewright.task.base import TaskSpec, kind_of, normalise
from edgewright.task.sources.images import expand_images, read_images, size_of

CHUNK = 256  # images held at a time


def predict(
    run_path: str | Path, paths: Sequence[str | Path], *, out: str | Path | None = None, threads: int | None = None
) -> list[dict[str, Any]]:
    """What a finished run's model.onnx says of image files; one entry a file.

        [{"file": "daisy.jpg", "class": "daisy", "probability": 0.98, "top": [...]}, ...]

    Args:
        paths: image files, and folders, of which every image file below them is taken.
        out: folder for files that belong to the answers (masks); none are written without it.
        threads: of the runtime (default: the plan's).
    Returns: for each file its name and what the task's kind tells of it (`Kind.tell`).
    Errors: BadInput for a folder that is no finished run, an altered model file, and an image that cannot be read.
    Cost: one image at a time through the runtime, CHUNK images in memory.
    Checked against: the PyTorch network on the same images (tests/export/test_predict.py).
    """
    run = RunFolder(Path(run_path))
    result = run.read_result()
    run.check_file(run.onnx)
    spec = TaskSpec.parse(result.task, str(run.result))
    kind, files = kind_of(spec), expand_images([Path(path) for path in paths])
    session = open_session(run.onnx, threads or run.read_plan().threads)
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or shape[1] != spec.input.shape[0] or not all(isinstance(side, int) for side in shape[2:]):
        raise BadInput(f"{run.onnx}: takes inputs of shape {shape}, which is not what the task in result.json gives")
    names, found = [output.name for output in session.get_outputs()], []
    for start in range(0, len(files), CHUNK):
        part = files[start : start + CHUNK]
        inputs = leaves(normalise(read_images(part, spec), spec, (shape[2], shape[3])))[0].numpy()
        for index, path in enumerate(part):
            given = session.run(None, {session.get_inputs()[0].name: inputs[index : index + 1]})
            outputs = as_tree({name: torch.from_numpy(y) for name, y in zip(names, given, strict=True)})
            place = None if out is None else Path(out) / path.stem
            found.append({"file": str(path), **kind.tell(outputs, size_of(path), place)})
    return found


def lines(run_path: str | Path, found: Sequence[dict[str, Any]]) -> list[str]:
    """The same for a person, a line a file."""
    run = RunFolder(Path(run_path))
    kind = kind_of(TaskSpec.parse(run.read_result().task, str(run.result)))
    return [
        f"{entry['file']}\t{kind.line({name: value for name, value in entry.items() if name != 'file'})}"
        for entry in found
    ]
