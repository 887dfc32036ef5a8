"""A device added from files, over the whole of NAS-Bench-201."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from edgewright.core.errors import BadInput
from edgewright.device.few.added import load_device
from edgewright.device.few.samples import read_priors
from edgewright.device.few.transfer import fit_known, known
from edgewright.job.new_device.new_device import add_device, latency_features, live_rows, suggest_networks
from edgewright.space.resolve import make_tabular
from edgewright.space.spaces.nasbench201 import NASBench201

SPACE = NASBench201.for_images(3, 10, 32)


def _samples(path: Path, table: np.ndarray, count: int) -> Path:
    rows = np.random.default_rng(4).choice(len(table), count, replace=False)
    path.write_text("index,latency_ms\n" + "".join(f"{row},{table[row]}\n" for row in rows))
    return path


def _tables() -> dict[str, np.ndarray]:
    totals, details = latency_features(SPACE)
    rng, found = np.random.default_rng(1), {}
    for name in ("one", "two", "three", "pi"):
        cost = np.sort(rng.uniform(0.1, 2, totals.shape[1]))
        found[name] = 3 + totals @ cost + details @ rng.uniform(0, 0.2, details.shape[1])
    return found


def test_features_count_operators_and_place_them() -> None:
    totals, details = latency_features(SPACE)
    assert totals.shape == (15_625, 5)
    assert details.shape == (15_625, 30)
    assert (totals.sum(axis=1) == 6).all()
    for index in (0, 77, 15_624):
        assert details[index].reshape(6, 5).argmax(axis=1).tolist() == list(SPACE.encode(SPACE.at(index)))


def test_live_rows_drop_what_does_not_reach_the_output() -> None:
    live = live_rows(SPACE)
    assert (live[live] == live).all()
    cell = SPACE.of(("nor_conv_3x3", "none", "nor_conv_1x1", "skip_connect", "none", "none"))
    left = SPACE.of(("none", "none", "none", "skip_connect", "none", "none"))
    assert live[SPACE.index(cell)] == SPACE.index(left)
    whole = SPACE.of(("nor_conv_3x3",) * 6)
    assert live[SPACE.index(whole)] == SPACE.index(whole)
    for index in range(0, len(SPACE), 97):
        one, other = (SPACE.structure(SPACE.at(row)) for row in (index, int(live[index])))
        for fact in ("live_layers", "live_poolings", "live_macs", "live_params", "paths", "depth"):
            assert getattr(one, fact) == getattr(other, fact)


def test_a_space_of_too_many_networks_is_refused() -> None:
    with pytest.raises(BadInput, match="too many to predict"):
        latency_features(make_tabular("mnasnet"))


def test_from_files_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DEVICES", str(tmp_path / "devices"))
    tables = _tables()
    np.savez(tmp_path / "known.npz", **tables)  # pyright: ignore[reportArgumentType]
    samples = _samples(tmp_path / "pi.csv", tables["pi"], 12)
    device = add_device("pi", "nb201", samples, [tmp_path / "known.npz"], out=tmp_path / "out.npz")
    found = np.load(tmp_path / "out.npz")["latency_ms"]
    assert found == pytest.approx(device.model.predict())
    assert np.median(np.abs(found / tables["pi"] - 1)) < 0.02
    assert load_device("pi") == device
    assert device.model.priors == ("one", "two", "three")
    assert "pi is in the prior itself and is left out" in capsys.readouterr().err
    assert len(set(suggest_networks("nb201", 10, [tmp_path / "known.npz"]))) == 10


def test_too_few_samples_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DEVICES", str(tmp_path / "devices"))
    samples = _samples(tmp_path / "pi.csv", _tables()["pi"], 4)
    with pytest.raises(BadInput, match="4 measured networks; a new device needs at least 5"):
        add_device("pi", "nb201", samples, out=tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()
    assert not (tmp_path / "devices").exists()


def test_published_devices_held_out(shared_data: Path) -> None:
    tables = read_priors([shared_data / "nas" / "nasbench201" / "nb201_latency.npz"], len(SPACE))
    totals, details = latency_features(SPACE)
    for name, sibling in (("silver_4210r", "silver_4114"), ("titan_rtx_256", "2080ti_256")):
        others = {other: table for other, table in tables.items() if other not in (name, sibling)}
        before, truth = known(totals, others, details, live_rows(SPACE)), tables[name]
        for count, least in ((10, 0.95), (20, 0.97)):
            rows = np.random.default_rng(count).choice(len(SPACE), count, replace=False)
            found = fit_known(rows, truth[rows], before).predict()
            assert np.corrcoef(rankdata(found), rankdata(truth))[0, 1] >= least
            assert np.median(np.abs(found / truth - 1)) <= 0.07
