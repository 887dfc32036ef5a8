"""Networks of timm by name, with weights from a file of the user's; nothing is downloaded."""

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgewright.core.errors import BadInput, MissingExtra
from edgewright.core.weights import put_weights, read_weights


def timm_network(name: str, weights: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, and what timm says of its input: input_size (C, H, W), mean and std for pixels
    between 0 and 1.

    weights: a safetensors file in timm's own names; counters of batch norms may be missing, floats of half size are
    widened, and the head is made for as many classes as the file's has.
    Errors: BadInput where timm is not installed, for an unknown name, and for weights of another network.
    """
    timm = _timm_with(name)
    values = None if weights is None else _read(weights)
    try:
        model = timm.create_model(name, pretrained=False)
        head = f"{model.pretrained_cfg.get('classifier')}.weight"
        if values is not None and head in values and len(values[head]) != model.num_classes:
            model = timm.create_model(name, pretrained=False, num_classes=len(values[head]))
    except RuntimeError as error:
        raise BadInput(f"timm cannot make the network '{name}' ({error})") from None
    if values is not None:
        put_weights(model, values, f"{weights}: not the weights of {name}")
    return model.eval(), dict(model.pretrained_cfg)


def timm_told(name: str) -> dict[str, Any]:
    """What timm says of a network, without making it: as of `timm_network`, licence and tag of its weights.

    Errors: BadInput where timm is not installed, and for an unknown name.
    """
    return dict(_timm_with(name).models.get_pretrained_cfg(name).to_dict())


def _timm_with(name: str) -> Any:
    """The library, if it has a network of that name."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("timm", "timm") from None
    if not timm.is_model(name):  # names of a hub, which would be fetched, are none
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "timm.list_models() lists what there is"
        raise BadInput(f"timm has no network '{name}'; {hint}")
    return timm


def _read(weights: Path) -> dict[str, Tensor]:
    return {name: value.float() for name, value in read_weights(weights).items()}
