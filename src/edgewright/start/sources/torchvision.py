"""Networks of torchvision: `torchvision:NAME`, with weights from a safetensors file in torchvision's own names."""

import difflib
from pathlib import Path

from torch import nn

from edgewright.core.errors import BadInput, MissingExtra
from edgewright.core.files import sha256
from edgewright.core.weights import check_weights, put_weights, read_weights
from edgewright.start.start import Opened, Start

PREFIX = "torchvision:"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of all its classifiers


def find(name: str, weights: Path | None, *, download: bool = False) -> Start:
    """The start of that name.   Errors: BadInput for an unknown name, and without a file of weights."""
    name = name.removeprefix(PREFIX)
    _make(name, 1000)
    if weights is None:
        raise BadInput(
            f"{PREFIX}{name}: give its weights with --weights FILE.safetensors; torchvision's own are pickles"
        )
    check_weights(weights)
    return Start(
        source=f"{PREFIX}{name}",
        weights=str(weights.absolute()),
        sha256=sha256(weights),
        licence="bsd-3-clause",
        mean=MEAN,
        std=STD,
        interpolation="bilinear",
        crop=0.875,
    )


def open_start(start: Start) -> Opened:
    name = start.source.removeprefix(PREFIX)
    values = None if start.weights is None else read_weights(Path(start.weights))
    outputs = 1000
    if values is not None:
        heads = [tensor for key, tensor in values.items() if tensor.ndim == 2 and key.endswith(".weight")]
        outputs = len(heads[-1]) if heads else outputs
    network = _make(name, outputs)
    if values is not None:
        values = {key: value.float() if value.is_floating_point() else value for key, value in values.items()}
        put_weights(network, values, f"{start.weights}: not the weights of {name}")
    return Opened(start, network.eval(), lambda: _make(name, outputs).eval())


def _make(name: str, outputs: int) -> nn.Module:
    try:
        from torchvision import models  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("torchvision", "timm") from None
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise BadInput(f"torchvision has no network '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    return models.get_model(name, weights=None, num_classes=outputs)
