"""Checkpoints: one safetensors file that is whole or absent, holds no code, and knows which training it belongs to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.files import write_bytes
from edgewright.core.tensors import Size
from edgewright.task.base import Task
from edgewright.train.clock import Clock

FORMAT = "edgewright checkpoint 4"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata as one file, which is flushed to disk before it takes its name."""
    # Cloned: safetensors refuses tensors that share memory, as tied weights do.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "digest": _digest(plain, meta), "meta": json.dumps(dict(meta))}
    write_bytes(path, safetensors.torch.save(plain, metadata=header))


def read_checkpoint(path: Path, expected: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and metadata of `path`; runs nothing that the file may hold.

    Args: expected: what metadata["identity"] must equal, entry by entry (model, recipe, seed, data ...).
    Errors: BadInput for a file that is no whole checkpoint, was altered, or belongs to another training.
    """
    remedy = "remove it to train from the start"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a whole checkpoint ({error}); {remedy}") from None
    try:
        meta = json.loads(header.get("meta", ""))
    except ValueError:
        meta = None
    if header.get("format") != FORMAT or not isinstance(meta, dict) or not isinstance(meta.get("identity"), dict):
        raise BadInput(f"{path}: not a checkpoint of this version of edgewright; {remedy}")
    if header.get("digest") != _digest(tensors, meta):
        raise BadInput(f"{path}: altered or damaged since it was written; {remedy}")
    found = meta["identity"]
    other = [name for name in expected if found.get(name) != expected[name]]
    if other:
        raise BadInput(f"{path}: a checkpoint of another training (another {', another '.join(other)}); {remedy}")
    return tensors, meta


def joined(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Several sets of named tensors as one: "<part>/<name>"."""
    return {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}


def parted(tensors: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The inverse of `joined`, for these parts; KeyError for a tensor of another."""
    found: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        found[part][name] = value
    return found


def model_signature(model: nn.Module) -> str:
    """Names the shape of a model: equal for equal layer names, sizes and types, whatever the weights."""
    lines = [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in model.state_dict().items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def training_identity(
    model: nn.Module, recipe: Frozen, task: Task, *, size: Size, seed: int, clock: Clock
) -> dict[str, Any]:
    """What two trainings must agree on for one to go on from the other's checkpoint."""
    return {
        "model": model_signature(model),
        "recipe": recipe.model_dump(mode="json"),
        "data": task.spec.digest,
        "number of samples": [len(task.train), len(task.val)],
        "size": list(size),
        "seed": seed,
        "schedule": clock.identity(),
    }


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: "<parameter index>.<name>"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value) for index, s in state.items() for name, value in s.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `flatten_optimizer`, for an optimizer over the same parameters.

    Each tensor takes its parameter's memory layout: the fused kernels walk both in memory order.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape and value.dtype == parameter.dtype:
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _digest(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """SHA-256 over names, sizes, values and metadata: safetensors itself notices a short file, not a changed bit."""
    total = hashlib.sha256(json.dumps(dict(meta), sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
