"""A task from one .npz file with x_train, y_train, x_test, y_test (and, if wanted, x_val, y_val, classes)."""

from pathlib import Path

import numpy as np
import torch

from edgewright.core.errors import BadInput
from edgewright.core.npz import opened_npz
from edgewright.task.assemble import Described, assemble, fit_size, is_text, to_size
from edgewright.task.base import Split, Task, Wishes

NEEDED = ("x_train", "y_train", "x_test", "y_test")
CHANNELS = (1, 3, 4)


def arrays(path: Path, wishes: Wishes) -> Task:
    """Read and check the file; every fault is one BadInput sentence.

    Images: (N, H, W, C), (N, C, H, W) or (N, H, W). Four axes are read as NHWC where the last has 1, 3 or 4 entries, as
    NCHW where the second has; where both have, the reading with square images wins, and NHWC if both or neither is
    square. Where neither has, the reading with square images wins (NCHW first). Images keep their shape; where the
    shorter side is outside 8..224 px both are scaled so that it is not. uint8 (and integers within 0..255) are kept
    as uint8, other numbers as float32, finite only.
    Labels: (N,) or (N, 1) integers 0..K-1. `classes`: K names. The test part is y_test's, in its order.
    Flips: on with three or more channels, unless given class names are all numbers or single letters.
    """
    found = _read(path)
    has_val = _has_val(path, found)
    names = ("train", "val", "test") if has_val else ("train", "test")
    parts = {name: _part(path, found, name) for name in names}
    shapes = {name: tuple(part.inputs.shape[1:]) for name, part in parts.items()}
    if len(set(shapes.values())) > 1 or len({part.inputs.dtype for part in parts.values()}) > 1:
        told = ", ".join(f"x_{name} {shape} {parts[name].inputs.dtype}" for name, shape in shapes.items())
        raise BadInput(f"{path}: the images of the parts disagree as (channels, height, width) and type: {told}")
    classes = _classes(path, found, parts)
    size = wishes.resolution or to_size(shapes["train"][1:])
    parts = {name: Split(fit_size(part.inputs, size), part.targets) for name, part in parts.items()}
    given = "classes" in found
    described = Described(
        name=path.stem,
        source=f"arrays:{path}",
        names=tuple(classes),
        flip=shapes["train"][0] >= 3 and not (given and is_text(classes)),
    )
    return assemble(described, wishes, train=parts["train"], val=parts.get("val"), test=parts["test"])


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise BadInput(f"{path}: not an .npz file; write one with numpy.savez, with {', '.join(NEEDED)}")
    wanted = (*NEEDED, "x_val", "y_val", "classes")
    with opened_npz(path) as file:
        found = {key: file[key] for key in file.files if key in wanted}
        present = list(file.files)
    missing = [key for key in NEEDED if key not in found]
    if missing:
        raise BadInput(f"{path}: {', '.join(missing)} missing; the file has {', '.join(present) or 'nothing'}")
    return found


def _has_val(path: Path, found: dict[str, np.ndarray]) -> bool:
    if ("x_val" in found) != ("y_val" in found):
        raise BadInput(f"{path}: x_val and y_val come together; only {'x' if 'x_val' in found else 'y'}_val is there")
    return "x_val" in found


def _part(path: Path, found: dict[str, np.ndarray], name: str) -> Split:
    x, y = found[f"x_{name}"], found[f"y_{name}"]
    labels = read_labels(y, f"{path}: y_{name}")
    if x.ndim == 0 or len(x) != len(labels):
        raise BadInput(f"{path}: x_{name} {x.shape} and y_{name} {y.shape} disagree in the number of images")
    if len(x) == 0:
        raise BadInput(f"{path}: x_{name} is empty")
    where = f"{path}: x_{name}"
    return Split(channels_first(read_pixels(x, where), where), labels)


def read_labels(y: np.ndarray, where: str) -> torch.Tensor:
    """(N,) int64 from (N,) or (N, 1) integers that are not negative."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise BadInput(f"{where}: labels must be one integer an image, shape (N,), not {y.shape}")
    if y.dtype.kind not in "iub":
        raise BadInput(f"{where}: labels must be integers, not {y.dtype}")
    if len(y) and y.min() < 0:
        raise BadInput(f"{where}: {int((y < 0).sum())} labels are negative (least {y.min()}); classes count from 0")
    if len(y) and y.max() >= 2**31:
        raise BadInput(f"{where}: label {y.max()} is out of range; classes count from 0 without gaps")
    return torch.from_numpy(y.astype(np.int64))


def read_pixels(x: np.ndarray, where: str) -> torch.Tensor:
    """uint8 where the values are, else finite float32."""
    if x.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(x))
    if x.dtype.kind in "iu" and x.size and x.min() >= 0 and x.max() <= 255:
        return torch.from_numpy(x.astype(np.uint8))
    if x.dtype.kind not in "iuf":
        raise BadInput(f"{where}: images must be uint8 or floating point, not {x.dtype}")
    with np.errstate(over="ignore"):
        values = x.astype(np.float32)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise BadInput(f"{where}: {bad} of {values.size} values are NaN or infinite; clean them first")
    return torch.from_numpy(values)


def channels_first(images: torch.Tensor, where: str) -> torch.Tensor:
    """(N, H, W), NHWC or NCHW to contiguous NCHW, by the rule `arrays` states."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim != 4 or 0 in images.shape:
        raise BadInput(f"{where}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W), not {tuple(images.shape)}")
    _, second, third, last = images.shape
    if (last in CHANNELS) != (second in CHANNELS):
        is_last = last in CHANNELS
    elif last in CHANNELS:
        is_last = second == third or third != last
    elif third == last or second == third:
        is_last = third != last
    else:
        raise BadInput(
            f"{where}: cannot tell the channels in shape {tuple(images.shape)}; "
            "1, 3 or 4 are expected, first or last, or square images"
        )
    return images.permute(0, 3, 1, 2).contiguous() if is_last else images


def _classes(path: Path, found: dict[str, np.ndarray], parts: dict[str, Split]) -> list[str]:
    top = int(parts["train"].targets.max()) + 1
    known = set(parts["train"].targets.unique().tolist())
    for name in parts:
        new = sorted(set(parts[name].targets.unique().tolist()) - known)
        if new:
            raise BadInput(f"{path}: y_{name} has class {new[0]}, which y_train lacks")
    if "classes" in found:
        given = found["classes"]
        if given.ndim != 1 or given.dtype.kind not in "US":
            raise BadInput(f"{path}: classes must be a one-dimensional array of strings, not {given.dtype}")
        names = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in given.tolist()]
        if len(set(names)) != len(names):
            raise BadInput(f"{path}: classes has a name twice")
        if top > len(names):
            raise BadInput(f"{path}: label {top - 1} in y_train is out of range: classes has {len(names)} names")
    else:
        names = [str(label) for label in range(top)] if top <= len(parts["train"]) else []
    absent = next((label for label in range(len(names) or top) if label not in known), None)
    if absent is not None:
        raise BadInput(f"{path}: y_train has no image of class {absent}; labels must run from 0 without gaps")
    return names
