"""What layers give: recorded in one network, and compared in another that reads the same at each of them.

Two networks of the same names that differ inside separate stretches, each ending in a watched layer: in the second one
every watched layer's output is compared and then replaced by what was recorded, so that what comes behind reads what it
read before. One pass tells the stretches' own differences apart, however many there are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

AT_ONCE = 4 * 3 * 224 * 224  # numbers of the input in one pass: four images, whose layers take some 200 MB


def portions(samples: Tensor, like: Sequence[int]) -> tuple[Tensor, ...]:
    """The samples in batches as small as memory asks for, none smaller than that of the shape `like`."""
    each = max(1, samples[:1].numel())
    return samples.split(max(AT_ONCE // each, like[0], 1))


def recorded(model: nn.Module, names: Sequence[str], samples: Tensor) -> tuple[dict[str, list[Tensor]], Tensor]:
    """What each named layer gives, call by call, and what the network gives."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def note(name: str, output: Tensor) -> None:
        seen[name].append(output.clone())  # an activation after it may work in place

    return seen, _hooked(model, names, samples, note)


def forced(
    model: nn.Module, seen: Mapping[str, list[Tensor]], samples: Tensor
) -> list[tuple[str, float, float]] | None:
    """For each call of each layer its name, largest difference and largest number, all layers reading what was
    recorded; None where layers are called another number of times or give another shape."""
    found: list[tuple[str, float, float]] = []
    left = {name: list(outputs) for name, outputs in seen.items()}

    def compare(name: str, output: Tensor) -> Tensor:
        if not left[name] or left[name][0].shape != output.shape:
            raise _DiffersError
        wanted = left[name].pop(0)
        found.append((name, *largest(wanted, output)))
        return wanted

    try:
        _hooked(model, list(seen), samples, compare)
    except _DiffersError:
        return None
    return None if any(left.values()) else found


class _DiffersError(Exception):
    """The second network is not of the first one's shapes."""


def given(model: nn.Module, layer: str, samples: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer gives, in its last call, and what the whole network gives; twice that where it is not called."""
    seen, output = recorded(model, [layer], samples)
    return (seen[layer] or [output])[-1], output


def largest(old: Tensor, new: Tensor) -> tuple[float, float]:
    """The largest difference, and the largest number that was there before."""
    return (new - old).abs().max().item(), old.abs().max().item()


def _hooked(
    model: nn.Module, names: Sequence[str], samples: Tensor, react: Callable[[str, Tensor], Tensor | None]
) -> Tensor:
    """The network's output; `react` sees what named layers give, and may put something else in its place."""

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        return lambda _module, _inputs, output: react(name, output)

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            return model(samples)
    finally:
        for handle in handles:
            handle.remove()
