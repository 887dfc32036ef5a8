"""Networks of timm: `timm:NAME`, with weights from a file, from the hub's cache on disk, or, where asked for, the hub.

Nothing is fetched unless the user says so. What timm says of a network's licence, data, normalisation and size is kept.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from edgewright.core.data import read_json
from edgewright.core.errors import BadInput, MissingExtra
from edgewright.core.files import sha256
from edgewright.core.home import user_path
from edgewright.core.weights import check_weights
from edgewright.model.timm_model import timm_network, timm_told
from edgewright.start.start import Opened, Start

PREFIX = "timm:"
FILE = "model.safetensors"
TRAINED_ON = {"in1k": "ImageNet-1k", "in12k": "ImageNet-12k", "in21k": "ImageNet-21k", "in22k": "ImageNet-22k"}


def find(name: str, weights: Path | None, *, download: bool = False) -> Start:
    """The start of that name (with or without "timm:").

    Errors: BadInput where timm is not installed, for an unknown name, and where its weights are not at hand.
    """
    name = name.removeprefix(PREFIX)
    told = timm_told(name)
    file = weights or _in_cache(told, name) or (_downloaded(told, name) if download else None)
    if file is None:
        raise BadInput(
            f"{PREFIX}{name}: its weights are not on this machine; give them with --weights FILE.safetensors, or let "
            "them be fetched from the hub with --download"
        )
    check_weights(file)
    return _start(name, file, told)


def open_start(start: Start) -> Opened:
    """The network with its weights; fresh ones where the start has no file."""
    name = start.source.removeprefix(PREFIX)
    file = None if start.weights is None else Path(start.weights)
    network, _ = timm_network(name, file)

    def make() -> nn.Module:
        return timm_network(name, None)[0]

    return Opened(start, network, make)


def name_in(config: Path) -> str | None:
    """The name, with its tag, in a config.json as the hub keeps it beside weights; None where it holds none."""
    told = read_json(config)
    name = told.get("architecture") if isinstance(told, dict) else None
    if not isinstance(name, str):
        return None
    more = told.get("pretrained_cfg")
    tag = more.get("tag") if isinstance(more, dict) else None
    return f"{name}.{tag}" if tag and "." not in name else name


def at_hand() -> Iterator[Start]:
    """Every network of timm in the hub's cache; nothing where timm is not installed."""
    for folder in _cached("models--timm--*"):
        name, file = folder.name.removeprefix("models--timm--"), _file_in(folder)
        try:
            if file is not None:
                yield _start(name, file, timm_told(name))
        except MissingExtra:
            return
        except BadInput:  # a network that this version of timm does not have
            continue


def _in_cache(told: dict[str, Any], name: str) -> Path | None:
    """The file of exactly these weights (of a name without a tag: timm's own choice, whose licence is told), if it was
    fetched before."""
    found = [_file_in(folder) for folder in _cached(f"models--{_place(told, name).replace('/', '--')}")]
    return found[0] if found else None


def _cached(pattern: str) -> list[Path]:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    try:
        return sorted(user_path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).glob(pattern))
    except BadInput:  # nobody's home
        return []


def _file_in(folder: Path) -> Path | None:
    return next((file for file in sorted(folder.glob(f"snapshots/*/{FILE}")) if file.is_file()), None)


def _place(told: dict[str, Any], name: str) -> str:
    """Where weights lie on the hub."""
    return str(told.get("hf_hub_id") or f"timm/{name}")


def _downloaded(told: dict[str, Any], name: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("huggingface_hub", "timm") from None
    try:
        return Path(hf_hub_download(_place(told, name), FILE))
    except Exception as error:  # of the wire, and of the hub, in many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{PREFIX}{name}: its weights could not be fetched ({reason[:200]})") from None


def _start(name: str, file: Path, told: dict[str, Any]) -> Start:
    channels, *square = told.get("input_size", (3, 224, 224))
    tag = str(told.get("tag") or name.partition(".")[2])
    data = next((text for word, text in TRAINED_ON.items() if word in tag.split("_")), "")
    return Start(
        source=f"{PREFIX}{name}",
        weights=str(file.absolute()),
        sha256=sha256(file),
        licence=str(told.get("license") or ""),
        trained_on=data,
        channels=int(channels),
        size=int(square[-1]),
        mean=tuple(told.get("mean") or (0.0,)),
        std=tuple(told.get("std") or (1.0,)),
        interpolation=str(told.get("interpolation") or ""),
        crop=told.get("crop_pct"),
    )
