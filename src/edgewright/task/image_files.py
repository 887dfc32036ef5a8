"""Image files for a network that is there: which there are below what is named, and read as its task keeps its own."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from edgewright.core.errors import BadInput
from edgewright.core.pool import cores
from edgewright.task.base import InputSpec, TaskSpec
from edgewright.task.finding import LeftOut, files_below
from edgewright.task.pixels import Faults, Kept, decoder, is_image, remarks_in_one_line, size_of, through
from edgewright.task.source import Given


def read_images(paths: Sequence[Path], spec: TaskSpec) -> torch.Tensor:
    """Images for prediction, as the task keeps its own: (N, C, H, W) raw.

    Folders are expanded by `expand_images`, in whose order the images come. uint8, or float32 where white is not 255.
    Unreadable files are one BadInput that names them.
    """
    one = only_map(spec)
    files, bad = expand_images(paths), Faults(0)
    stored = np.empty((len(files), *one.shape), np.uint8)
    decode = decoder(Kept(one.shape[0], (one.shape[1], one.shape[2]), one.fit, one.deep_white))
    with remarks_in_one_line("images"), ThreadPoolExecutor(cores()) as threads:
        for row, image in enumerate(through(threads, decode, files, bad, "Reading images")):
            if image is not None:
                stored[row] = image
    bad.check()
    raw = torch.from_numpy(stored)
    return raw if one.white == 255 else raw.float() * (one.white / 255)


def only_map(spec: TaskSpec) -> InputSpec:
    """The one input of a task that takes images.   Errors: BadInput for a task that takes something else."""
    if len(spec.inputs) != 1 or not spec.inputs[0].is_map:
        told = ", ".join(one.name for one in spec.inputs)
        raise BadInput(
            f"task '{spec.name}' takes {told}: image files alone cannot be read for it; give arrays:FILE.npz"
        )
    one = spec.inputs[0]
    if one.white == 0:
        raise BadInput(
            f"task '{spec.name}' learned from float arrays of unknown scale: image files cannot be read for it"
        )
    if one.shape[0] not in (1, 3, 4):
        raise BadInput(f"task '{spec.name}' has {one.shape[0]} channels: image files cannot be read for it")
    return one


def expand_images(paths: Sequence[Path]) -> list[Path]:
    """Files as given; each folder replaced by the image files below it, sorted. Others are counted and told."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            left_out = LeftOut()
            found = files_below(path, left_out)
            inside = [file for file in found if is_image(file)]
            for file in set(found) - set(inside):
                left_out.stranger(file)
            if not inside:
                raise BadInput(f"{path}: no images in this folder{f' (left out {left_out})' if str(left_out) else ''}")
            left_out.tell(path)
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise BadInput(f"{path}: no such file or folder")
    if not files:
        raise BadInput("no images given")
    return files


def given_files(paths: Sequence[Path], spec: TaskSpec) -> Given:
    """Images, and all below folders, as they come."""
    only_map(spec)
    files = expand_images(paths)
    return Given(
        files=[str(path) for path in files],
        stems=[path.stem for path in files],
        take=lambda rows: read_images([files[row] for row in rows], spec),
        size=lambda index: size_of(files[index]),
    )
