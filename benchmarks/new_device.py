"""A new device from 10 and 20 measured networks: each device of a file held out in turn, the others as prior.

Prints a table and writes `new_device.json` and `new_device.html`. Per device: the ceiling, which is what a regression
on the whole of four fifths of the device's own table predicts of the last fifth (what noise leaves); then Spearman and
median relative error, mean of the draws, and of one fit on suggested networks. `--leave` says which devices are no
prior: `one` the held-out one only, `chip` its chip at any batch size too, `kind` all of its kind, `all` every device.

    python benchmarks/new_device.py --latency nb201_latency.npz --leave one --out runs/new-device

With `--prior` nothing is held out: the devices of `--latency` are predicted from those of the other file.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.core.files import write_text
from edgewright.core.ranking import spearman
from edgewright.device.few.samples import read_priors
from edgewright.device.few.smooth import smooth
from edgewright.device.few.transfer import fit_known, known, suggest
from edgewright.job.new_device.new_device import latency_features, live_rows
from edgewright.report.page import page
from edgewright.space.resolve import make_tabular

KINDS = {"gold": "xeon", "silver": "xeon", "pixel2": "phone", "essential": "phone", "samsung": "phone", "fpga": "fpga"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=Path, required=True, help="FILE.npz, an array a device")
    parser.add_argument("--prior", type=Path, help="FILE.npz of other devices; then none is held out")
    parser.add_argument("--space", default="nb201")
    parser.add_argument("--leave", choices=("one", "chip", "kind", "all"), default="one")
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    size = len(make_tabular(options.space))
    tables = read_priors([options.latency], size)
    others = None if options.prior is None else read_priors([options.prior], size)
    start, rows = time.perf_counter(), []
    ceilings = _ceilings(tables, options.space)
    heads = [f"{count} {how}" for count in options.counts for how in ("random", "suggested")]
    print(f"{'device':<18}{'ceiling':>14}" + "".join(f"{head:>16}" for head in heads))
    with ProcessPoolExecutor(options.workers) as pool:
        work = partial(_device, tables, others, options.space, options.leave, options.counts, options.draws)
        for row in pool.map(work, tables):
            row["ceiling"] = ceilings[row["device"]]
            rows.append(row)
            print(_line(row, heads), flush=True)
    means: dict[str, Any] = {"device": "mean"}
    means |= {key: np.mean([row[key] for row in rows], axis=0).tolist() for key in ("ceiling", *heads)}
    print(_line(means, heads))
    print(f"{time.perf_counter() - start:.0f} s; {100 * np.mean([row['inside'] for row in rows]):.0f} % of the "
          "measurements inside the interval for 90 %")  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "new_device.json", json.dumps({"leave": options.leave, "rows": rows}, indent=1))
    write_text(options.out / "new_device.html", _picture(rows, heads))


def _line(row: dict[str, Any], heads: Sequence[str]) -> str:
    cells = (f"{row[key][0]:.3f} {100 * row[key][1]:.1f} %" for key in ("ceiling", *heads))
    return f"{row['device']:<18}" + "".join(f"{cell:>{14 if not place else 16}}" for place, cell in enumerate(cells))


def _device(
    tables: dict[str, np.ndarray],
    others: dict[str, np.ndarray] | None,
    space_name: str,
    leave: str,
    counts: Sequence[int],
    draws: int,
    name: str,
) -> dict[str, Any]:
    space, truth = make_tabular(space_name), tables[name]
    priors = {other: table for other, table in (others or tables).items() if others or _prior(name, other, leave)}
    totals, details = latency_features(space)
    views = known(totals, priors, details, live_rows(space))
    there = np.flatnonzero(np.isfinite(truth))
    found: dict[str, Any] = {"device": name}
    inside = []
    for count in counts:
        rng = np.random.default_rng([count, *name.encode()])
        random = [_score(rng.choice(there, count, replace=False), truth, there, views) for _ in range(draws)]
        found[f"{count} random"] = np.array(random).mean(axis=0).tolist()
        inside += [score[2] for score in random]
        asked = np.array(suggest(count, views, among=there))
        found[f"{count} suggested"] = list(_score(asked, truth, there, views))
    return found | {"inside": float(np.mean(inside))}


def _prior(name: str, other: str, leave: str) -> bool:
    if leave == "all" or name == other:
        return False
    if leave == "chip":
        return _kind(name) != "gpu" or name.rsplit("_", 1)[0] != other.rsplit("_", 1)[0]
    return leave == "one" or _kind(name) != _kind(other)


def _kind(name: str) -> str:
    return KINDS.get(name.split("_")[0], "gpu")


def _score(rows: np.ndarray, truth: np.ndarray, there: np.ndarray, views: Any) -> tuple[float, float, float]:
    """Spearman, median relative error, and the share inside the 90 % interval."""
    model = fit_known(rows, truth[rows], views)
    rest = np.setdiff1d(there, rows)
    off = np.abs(truth - model.predict())[rest] < 1.645 * np.array(model.spread_ms)[rest]
    return *_agreement(model.predict()[rest], truth[rest]), float(off.mean())


def _agreement(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    order = spearman(found, truth)
    return np.nan if order is None else order, float(np.median(np.abs(found / truth - 1)))


def _ceilings(tables: dict[str, np.ndarray], space_name: str) -> dict[str, tuple[float, float]]:
    _, details = latency_features(make_tabular(space_name))
    fold = np.random.default_rng(0).integers(0, 5, len(details))
    found = {name: np.zeros(len(details)) for name in tables}
    for part in range(5):
        seen = {name: np.where(fold == part, np.nan, table) for name, table in tables.items()}
        smoothed = smooth(seen, details)
        for place, name in enumerate(tables):
            found[name][fold == part] = smoothed[fold == part, place] * np.nanmean(seen[name])
    kept = {name: np.isfinite(table) for name, table in tables.items()}
    return {name: _agreement(found[name][kept[name]], table[kept[name]]) for name, table in tables.items()}


def _picture(rows: Sequence[dict[str, Any]], heads: Sequence[str]) -> str:
    """Spearman of every device: the ceiling and each way of choosing samples."""
    axis = {"gridcolor": "$line", "linecolor": "$line", "automargin": True}
    colours = ("$ink", "$k3", "$k1", "$k2", "$k4")
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": key, "x": [row["device"] for row in rows],
            "y": [row[key][0] for row in rows],
            "marker": {"color": colour, "size": 11, "symbol": "line-ew-open" if key == "ceiling" else "circle"},
        }
        for key, colour in zip(("ceiling", *heads), colours, strict=False)
    ]  # fmt: skip
    layout = {
        "xaxis": axis, "yaxis": {**axis, "title": {"text": "Spearman, networks that were not measured"}},
        "font": {"color": "$ink", "size": 13}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "height": 460, "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }  # fmt: skip
    body = "<h1>edgewright: a device from a few measurements</h1><div class='plot' id='devices'></div>"
    return page("edgewright: new device", body, {"devices": {"data": traces, "layout": layout}})


if __name__ == "__main__":
    main()
