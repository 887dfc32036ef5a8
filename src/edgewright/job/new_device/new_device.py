"""Adding a device from a few measured networks of a published space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.cost import figures
from edgewright.core.errors import BadInput
from edgewright.core.files import written_whole
from edgewright.core.progress import say
from edgewright.device.few.added import AddedDevice, save_device
from edgewright.device.few.samples import read_priors, read_samples
from edgewright.device.few.transfer import Known, fit_known, known, suggest
from edgewright.space.base import TabularSpace
from edgewright.space.resolve import make_tabular

LARGEST_SPACE = 50_000


def add_device(
    name: str,
    space: str,
    samples: Path,
    priors: Sequence[Path] = (),
    *,
    out: Path | None = None,
    keep: bool = True,
) -> AddedDevice:
    """Predict the latency of every network of `space` on a device of which `samples` (CSV: index,latency_ms) are known.

    Args:
        priors: .npz files with the latencies of other devices; see `device.samples.read_priors`. An array called `name`
            is left out: a device is not its own prior.
        out: .npz file for `latency_ms` and `spread_ms` over the whole space.   keep: under its name, for later.
    Errors: BadInput for files that cannot be used and fewer than 5 samples.
    """
    made = make_tabular(space)
    before = known_devices(made, priors, without=name)
    indices, latency_ms = read_samples(samples, len(made))
    device = AddedDevice(name=name, space=space, model=fit_known(indices, latency_ms, before))
    if out is not None:
        with written_whole(out) as part, part.open("wb") as file:
            np.savez(file, latency_ms=device.model.predict(), spread_ms=np.array(device.model.spread_ms))
    if keep:
        save_device(device)
    return device


def suggest_networks(space: str, count: int, priors: Sequence[Path] = ()) -> list[int]:
    """The `count` networks of `space` to measure on a new device, most telling first."""
    return suggest(count, known_devices(make_tabular(space), priors))


def known_devices(space: TabularSpace, priors: Sequence[Path] = (), *, without: str = "") -> tuple[Known, ...]:
    """What is known of devices in `space` from files of latencies."""
    totals, details = latency_features(space)
    tables = read_priors(priors, len(space))
    if without in tables:
        say(f"{without} is in the prior itself and is left out of it")
        del tables[without]
    return known(totals, tables, details, live_rows(space))


def latency_features(space: TabularSpace) -> tuple[np.ndarray, np.ndarray]:
    """Totals and details (see `device.transfer`) of every network of `space`.

    Details: each choice one-hot. Totals: how often each option is chosen, where all choices have the same options, as
    operators on edges do; the choices themselves, where they differ.
    """
    if len(space) > LARGEST_SPACE:
        raise BadInput(f"space {space.name}: its {figures(len(space), 2)} networks are too many to predict all of them")
    counts = space.choices()
    choices = np.array([space.encode(space.at(index)) for index in range(len(space))])
    details = np.hstack([np.eye(count)[choices[:, place]] for place, count in enumerate(counts)])
    if len(set(counts)) > 1:
        return choices.astype(float), details
    return details.reshape(len(choices), len(counts), counts[0]).sum(axis=1), details


def live_rows(space: TabularSpace) -> np.ndarray:
    """For every network the row of the one without what does not reach the output."""
    return np.array([space.live(index) for index in range(len(space))])
