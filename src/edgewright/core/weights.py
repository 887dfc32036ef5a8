"""Weights in a file: safetensors, written whole, on the processor, each tensor with memory of its own."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.core.files import written_whole


def write_weights(path: Path, model: nn.Module) -> None:
    """The network's parameters and buffers."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with written_whole(path) as part:
        save_file(state, part)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Errors: BadInput where there is no such file, or it is none of safetensors."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadInput(f"{path}: not a safetensors file ({error})") from None


def put_weights(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Give a network these weights.   Errors: BadInput that names `where`, for weights of another network."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(f"{where} ({' '.join(str(error).split())[:200]})") from None
