"""Networks of timm by name, with weights from a file of the user's; nothing is downloaded."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgewright.core.errors import BadInput


def timm_network(name: str, weights: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, and what timm says of its input: input_size (C, H, W), mean and std for pixels
    between 0 and 1.

    weights: a safetensors file in timm's own names; counters of batch norms may be missing, floats of half size are
    widened.   Errors: BadInput where timm is not installed, for an unknown name, and for weights of another network.
    """
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise BadInput("timm networks need the extra 'timm': pip install 'edgewright[timm]'") from None
    try:
        model = timm.create_model(name, pretrained=False)
    except RuntimeError as error:
        raise BadInput(f"timm has no network '{name}' ({error})") from None
    if weights is not None:
        _load(model, weights, name)
    return model.eval(), dict(model.pretrained_cfg)


def _load(model: nn.Module, weights: Path, name: str) -> None:
    if not weights.exists():
        raise BadInput(f"{weights}: no such file")
    try:
        missing, unexpected = model.load_state_dict({k: v.float() for k, v in load_file(weights).items()}, strict=False)
    except SafetensorError as error:
        raise BadInput(f"{weights}: not a safetensors file ({error})") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{weights}: not the weights of {name} ({reason})") from None
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        found = f"no {missing[0]}" if missing else f"an unknown {unexpected[0]}"
        raise BadInput(f"{weights}: not the weights of {name} ({found})")
