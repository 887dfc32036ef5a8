"""What makes figures flatter or mean nothing: seen when data is read, and told, or refused where it is a mistake.

One sample in train and in test, or with two different targets; parts on different scales; data of one value.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.tensors import leaves
from edgewright.task.base import Split
from edgewright.task.kind import Kind

CHUNK = 1024
APART = 4  # so many times as large, parts are in different units
LOOKED_AT = 2**24  # numbers of a part, about, from which its scale is taken
QUANTILE_OF = 1_000_000  # and numbers for a quantile, which are sorted


def constant(train: Split) -> Iterator[str]:
    """Remarks on inputs of which every number is the same."""
    for stored in leaves(train.inputs):
        first = stored.flatten()[0]
        if all(bool((chunk == first).all()) for chunk in stored.split(CHUNK)):
            yield f"every number of the training inputs is {first:g}; there is nothing to learn from"


def refuse_other_scales(parts: Mapping[str, Split | None], where: str) -> None:
    """Errors: BadInput where a part differs more than fourfold from train in its spread, its largest number and its
    common large ones alike: one outlier, or a dark image, is no other unit."""
    known = {name: [_scale(x) for x in leaves(part.inputs)] for name, part in parts.items() if part is not None}
    for name, scales in known.items():
        for mine, train in zip(scales, known["train"], strict=True):
            times = [one / other if other else math.inf for one, other in zip(mine, train, strict=True) if one or other]
            if times and (min(times) > APART or max(times) < 1 / APART):
                raise BadInput(
                    f"{where}: the numbers of {name} reach {mine[1]:g}, those of train {train[1]:g}: give all parts in "
                    "the same units"
                )


def _scale(stored: Tensor) -> tuple[float, float, float]:
    """Standard deviation, largest absolute number, and what a tenth of them are above."""
    some = stored[:: max(1, stored.numel() // LOOKED_AT)].float().flatten()
    few = some[:: max(1, len(some) // QUANTILE_OF)].abs()
    return float(some.std(correction=0)), float(some.abs().max()), float(few.quantile(0.9))


def repeated(kind: Kind, train: Split, val: Split, test: Split) -> Iterator[str]:
    """Remarks on samples whose inputs are the same, number for number."""
    parts = [_hashes(part) for part in (train, val, test)]
    learned = {*parts[0]}
    seen = learned | {*parts[1]}
    again = sum(one in seen for one in parts[2])
    if again:
        told = "figures on test say nothing" if again == len(test) else "figures on test will flatter"
        yield f"{again:,} of {len(test):,} test samples are also in train: {told}"
    if looked_at := sum(one in learned for one in parts[1]):
        yield f"{looked_at:,} of {len(val):,} samples of val are also in train"
    found = [kind.strata(part.targets) for part in (train, val, test)]
    strata = [one for one in found if one is not None]
    if len(strata) == len(parts):
        yield from _torn([one for part in parts for one in part], torch.cat(strata).tolist())


def unseen(kind: Kind, train: Split, val: Split) -> Iterator[str]:
    """A remark on classes that are learned and never looked at: where all of one belongs together."""
    learned, looked_at = kind.strata(train.targets), kind.strata(val.targets)
    if learned is not None and looked_at is not None:
        missing = sorted(set(learned.tolist()) - set(looked_at.tolist()))
        if missing and max(missing) < len(kind.names):
            more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
            yield f"'{kind.names[missing[0]]}'{more} in train alone: no figure on val says how well it is known"


def _torn(hashes: list[bytes], strata: list[int]) -> Iterator[str]:
    """Of samples that are there with different targets."""
    classes: dict[bytes, set[int]] = defaultdict(set)
    for one, stratum in zip(hashes, strata, strict=True):
        classes[one].add(stratum)
    torn = sum(len(classes[one]) > 1 for one in hashes)
    if torn:
        told = "; there is nothing to tell them apart by" if torn == len(hashes) else ""
        yield f"{torn:,} of {len(hashes):,} samples are there in two classes with the same content{told}"


def _hashes(part: Split) -> list[bytes]:
    """Of each sample's inputs."""
    found = [hashlib.blake2b(digest_size=16) for _ in range(len(part))]
    for stored in leaves(part.inputs):
        rows = stored.flatten(1)
        for start in range(0, len(rows), CHUNK):
            for state, row in zip(found[start : start + CHUNK], rows[start : start + CHUNK].numpy(), strict=True):
                state.update(row)
    return [state.digest() for state in found]
