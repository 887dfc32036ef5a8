"""Weights in a file: safetensors, written whole, on the processor, each tensor with memory of its own."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.core.files import written_whole

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
PROTOCOLS = tuple(bytes((0x80, version)) for version in range(2, 6))  # first bytes of a pickle


def write_weights(path: Path, model: nn.Module) -> None:
    """The network's parameters and buffers."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with written_whole(path) as part:
        save_file(state, part)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Errors: BadInput where there is no such file, for a pickle, and for what is no whole safetensors file."""
    check_weights(path)
    with _told(path):
        return load_file(path)


def check_weights(path: Path) -> None:
    """Errors as of `read_weights`, from the file's head alone."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if pickled(path):
        raise BadInput(no_pickle(path))
    with _told(path), safe_open(path, "pt"):
        pass


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise BadInput(f"{path}: not a safetensors file, or half of one ({error}); fetch it again") from None


def pickled(path: Path) -> bool:
    """Whether a file is, by its name or its first bytes, one of torch.save: which could run a stranger's code."""
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file opens with the length of its head, whose two low bytes may be any, and then with "{".
    return path.name.endswith(PICKLES) or (head.startswith((b"PK\x03\x04", *PROTOCOLS)) and head[8:] != b"{")


def no_pickle(path: Path) -> str:
    """Why such a file is not read, and the line that makes another of it."""
    return (
        f"{path}: a pickle, which could run a stranger's code when it is read; where you trust it, convert it once: "
        'python -c "import torch; from safetensors.torch import save_file; '
        f"save_file(torch.load('{path}', weights_only=True), '{path.with_suffix('.safetensors')}')\""
    )


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Give a network these weights; counters of batch norms may be missing.

    Errors: BadInput that names `where` and tensors, for weights of another network."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in own]
    odd = [name for name in own if own[name] != given.get(name, own[name])]
    told = [
        f"{where_not} {names[0]}{_more(names)}"
        for where_not, names in (("the file has no", missing), ("the network has no", unknown))
        if names
    ]
    told += [f"{odd[0]} is {given[odd[0]]} there and {own[odd[0]]} in the network{_more(odd)}"] if odd else []
    if told:
        raise BadInput(f"{where} ({'; '.join(told)})")
    model.load_state_dict(weights, strict=False)


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
