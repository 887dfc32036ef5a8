"""What a run's network says of files, from the run folder alone, through the file that ships."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.core.tensors import Size, as_tree, leaves, mapped, named
from edgewright.device.here.runtime import open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.export.running import tree_of
from edgewright.task.base import TaskSpec, kind_of, normalise
from edgewright.task.load import read_all_given

CHUNK = 256  # samples held at a time


def predict(
    run_path: str | Path, paths: Sequence[str | Path], *, out: str | Path | None = None, threads: int | None = None
) -> list[dict[str, Any]]:
    """What a finished run's model.onnx says of samples; one entry each.

        [{"file": "daisy.jpg", "class": "daisy", "probability": 0.98, "top": [...]}, ...]

    Args:
        paths: image files, folders, of which every image file below them is taken, and what a task is read from
            (images:DIR; arrays:FILE.npz gives x, or else x_test, as "FILE.npz[0]", "FILE.npz[1]", ...).
        out: folder for files that belong to the answers (masks); none are written without it.
        threads: of the runtime (default: the plan's).
    Returns: for each its name as `file`, and what the task's kind tells of it (`Kind.tell`).
    Errors: BadInput for a folder that is no finished run, an altered model file, and an image that cannot be read.
    Cost: one sample at a time through the runtime, CHUNK samples in memory.
    Checked against: the PyTorch network on the same images (tests/export/test_predict.py).
    """
    run = RunFolder(Path(run_path))
    result = run.read_result()
    run.check_file(run.onnx)
    spec = TaskSpec.parse(result.task, str(run.result))
    kind, every = kind_of(spec), read_all_given([str(path) for path in paths], spec)
    session = open_session(run.onnx, threads or run.read_plan().threads)
    size, stems = _size(session, spec, run.onnx), _unlike([stem for given in every for stem in given.stems])
    found = []
    for given in every:
        for start in range(0, len(given), CHUNK):
            rows = range(start, min(start + CHUNK, len(given)))
            inputs = normalise(given.take(rows), spec, size)
            for index, row in enumerate(rows):
                outputs = _asked(session, mapped(lambda x, index=index: x[index : index + 1], inputs), spec)
                stem = next(stems)
                place = None if out is None else Path(out) / stem
                found.append({"file": given.files[row], **kind.tell(outputs, given.size(row), place)})
    return found


def _size(session: Any, spec: TaskSpec, path: Path) -> Size:
    """Height and width of the maps that the file takes.   Errors: BadInput where it does not take what the task has."""
    shapes = {one.name: list(one.shape) for one in session.get_inputs()}
    taken = as_tree(shapes)
    fits = len(shapes) == len(spec.inputs) and (len(shapes) == 1 or {*shapes} == {one.name for one in spec.inputs})
    for one in spec.inputs if fits else ():
        shape = named(taken, spec.inputs)[one.name]
        fits &= len(shape) == 1 + len(one.shape) and shape[1] == one.shape[0]
    size = next((shape[2:] for shape in shapes.values() if len(shape) == 4), [])
    if not fits or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise BadInput(f"{path}: takes inputs of shape {taken}, which is not what the task in result.json gives")
    return size[0], size[1]


def _asked(session: Any, inputs: Any, spec: TaskSpec) -> Any:
    """The outputs for one sample, as a tree."""
    names = [one.name for one in session.get_inputs()]
    sample = leaves(inputs) if len(names) == 1 else [named(inputs, spec.inputs)[name] for name in names]
    found = run_session(session, [x.numpy() for x in sample])
    return tree_of([one.name for one in session.get_outputs()], found)


def _unlike(stems: Sequence[str]) -> Iterator[str]:
    """Names of files that differ, of names that may be the same: a, a-2, a-3."""
    seen: Counter[str] = Counter()
    for stem in stems:
        seen[stem] += 1
        yield stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"


def lines(run_path: str | Path, found: Sequence[dict[str, Any]]) -> list[str]:
    """The same for a person, a line a file."""
    run = RunFolder(Path(run_path))
    kind = kind_of(TaskSpec.parse(run.read_result().task, str(run.result)))
    return [
        f"{entry['file']}\t{kind.line({name: value for name, value in entry.items() if name != 'file'})}"
        for entry in found
    ]
