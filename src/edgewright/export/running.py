"""What networks say of samples: each is asked one sample at a time, as it will be used, and gives all its outputs."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.tensors import as_tree
from edgewright.device.here.runtime import open_session, run

Sample = Sequence[np.ndarray]  # one array for each input of a network, in its order
Says = Callable[[Sample], list[np.ndarray]]  # to one array for each output
# One output over N samples: (N, ...), the samples in place of a batch of 1; a list where its shape varies.
Answers = np.ndarray | list[np.ndarray]


def call_of(model: onnx.ModelProto) -> Says:
    """An ONNX network that was made here, not the user's file, as a function of one sample.

    Errors: EdgewrightError where ONNX Runtime cannot open it; then `call`'s, where it fails when it runs.
    """
    try:
        return partial(run, open_session(model.SerializeToString()))
    except BadInput as error:
        raise EdgewrightError(f"what was made of the network cannot be run ({error})") from None


def outputs(model: onnx.ModelProto, samples: Iterable[Sample]) -> list[Answers]:
    """What `model` says of each sample: one entry for each output.   Errors: as of `call_of`."""
    return gathered(map(call_of(model), samples))


def tree_of(names: Sequence[str], arrays: Sequence[Any]) -> Any:
    """Arrays, of one sample's inputs or of outputs over samples, as the tree of tensors that PyTorch networks take and
    kinds of tasks judge."""
    return as_tree({name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in zip(names, arrays, strict=True)})


def gathered(found: Iterable[Sequence[np.ndarray]]) -> list[Answers]:
    """The outputs of each sample, one sample after the other, as one entry for each output."""
    return [_one(values) for values in zip(*found, strict=True)]


def _one(values: Sequence[np.ndarray]) -> Answers:
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        return list(values)
    batched = next(iter(shapes))[:1] == (1,)
    return np.concatenate(values) if batched else np.stack(values)
