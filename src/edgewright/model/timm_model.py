"""Networks of timm by name, with weights from a file of the user's; nothing is downloaded."""

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgewright.core.errors import BadInput, MissingExtra
from edgewright.core.weights import read_weights


def is_timm(name: str) -> bool:
    """Whether timm is installed and has a network of that name."""
    try:
        return timm_network(name, None) is not None
    except BadInput:
        return False


def timm_network(name: str, weights: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, and what timm says of its input: input_size (C, H, W), mean and std for pixels
    between 0 and 1.

    weights: a safetensors file in timm's own names; counters of batch norms may be missing, floats of half size are
    widened, and the head is made for as many classes as the file's has.
    Errors: BadInput where timm is not installed, for an unknown name, and for weights of another network.
    """
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("timm", "timm") from None
    if not timm.is_model(name):  # names of a hub, which would be fetched, are none
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "timm.list_models() lists what there is"
        raise BadInput(f"timm has no network '{name}'; {hint}")
    values = None if weights is None else _read(weights)
    try:
        model = timm.create_model(name, pretrained=False)
        head = f"{model.pretrained_cfg.get('classifier')}.weight"
        if values is not None and head in values and len(values[head]) != model.num_classes:
            model = timm.create_model(name, pretrained=False, num_classes=len(values[head]))
    except RuntimeError as error:
        raise BadInput(f"timm cannot make the network '{name}' ({error})") from None
    if values is not None:
        _load(model, values, f"{weights}: not the weights of {name}")
    return model.eval(), dict(model.pretrained_cfg)


def _read(weights: Path) -> dict[str, Tensor]:
    return {name: value.float() for name, value in read_weights(weights).items()}


def _load(model: nn.Module, values: dict[str, Tensor], refusal: str) -> None:
    own = set(model.state_dict())
    missing = sorted(name for name in own - set(values) if not name.endswith("num_batches_tracked"))
    unexpected = sorted(set(values) - own)
    if missing or unexpected:
        found = f"the file has no {missing[0]}" if missing else f"the network has no {unexpected[0]}"
        raise BadInput(f"{refusal} ({found})")
    try:
        model.load_state_dict(values, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[1].split())  # of the first that does not fit
        raise BadInput(f"{refusal} ({reason.rstrip('.')})") from None
