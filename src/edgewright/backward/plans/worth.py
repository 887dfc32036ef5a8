"""What each method at each layer is worth to the planner: guessed by size, or measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgewright.backward.plans.knapsack import FROZEN, Choice, Option
from edgewright.backward.survey import Site
from edgewright.core.errors import BadInput

Contributions = Mapping[tuple[str, str], float]  # by layer and method
UNSEEN = 0.1  # of all value: shared out by guess, for what a few batches cannot see


def guess(site: Site, numbers: Mapping[str, int], stored: int) -> float:
    """What a method is worth where nothing was measured. A gradient made from a share of the input is worth the root of
    that share: its cosine with the exact one, if the rest is noise."""
    whole = sum(math.prod(call.input) * call.element for call in site.calls)
    share = min(1.0, stored / whole)
    return sum(math.sqrt(count * (share if name == "weight" else 1.0)) for name, count in numbers.items())


def valued(guessed: Sequence[Choice], contributions: Contributions) -> list[Choice]:
    """The choices with measured contributions in place of guesses.

    Learning in full is worth no less than any part or approximation of it: where that seems to bring more, it averages
    noise away, as a training does anyway. And a layer that seems to bring nothing in a few batches is given a little,
    by guess, so that memory to spare is not left idle. Where nothing brings anything (the network knows these images by
    heart), all is by guess.
    """
    measured = {
        (choice.layer, option.method): max(0.0, contributions.get((choice.layer, option.method), 0.0))
        for choice in guessed
        for option in choice.options
    }
    best = {choice.layer: max(measured[choice.layer, option.method] for option in choice.options) for choice in guessed}
    likely = sum(max(option.value for option in choice.options) for choice in guessed) or 1.0
    scale = (UNSEEN * sum(best.values()) or 1.0) / likely

    def worth(layer: str, option: Option) -> float:
        return (best[layer] if option.method == "full" else measured[layer, option.method]) + scale * option.value

    return [
        replace(choice, options=tuple(replace(option, value=worth(choice.layer, option)) for option in choice.options))
        for choice in guessed
    ]


def useful(choice: Choice, always: bool) -> Choice:
    """Without the options that bring nothing; with learning in full alone, where it always does."""
    options = [option for option in choice.options if option.method == FROZEN or option.value > 0]
    if always and not (options := [option for option in choice.options if option.method == "full"]):
        raise BadInput(f"layer '{choice.layer}' was to learn in full, and it cannot learn")
    return replace(choice, options=tuple(options))
