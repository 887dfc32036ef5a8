"""The fastest that loses little enough wins; a slower int8 never does; whatever fails is a row with its reason."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewright.core.errors import BadInput
from edgewright.device.measure import Runs
from edgewright.export.choose.candidates import Wanted
from edgewright.export.choose.choice import UNASKED, Choice, NothingFits, choose
from edgewright.export.choose.samples import Samples
from edgewright.export.running import outputs
from edgewright.export.runtimes.base import KINDS, Built, Network, Program, Runtime, Unfit
from edgewright.export.runtimes.onnxruntime_adapter import OnnxRuntime

SHAPE = (1, 3, 12, 20)
KEYS = ["runtime", "type", "latency_ms", "p90_ms", "size_bytes", "metric", "top1_agreement", "refused",
        "outputs"]  # fmt: skip


@dataclass
class Made(Runtime):
    """A runtime of the tests: takes `milliseconds` by type, and gives what `says` makes of the source's outputs."""

    name: str = "made"  # pyright: ignore[reportIncompatibleVariableOverride]
    library, extra, suffixes, summary, source = "onnx", "made", (".made",), "", ""
    milliseconds: dict[str, float] = field(default_factory=lambda: {"fp32": 4.0, "bf16": 3.0, "int8": 2.0})
    says: Callable[[str, np.ndarray], np.ndarray] = lambda kind, y: y
    there: bool = True

    def installed(self) -> bool:
        return self.there

    def refusal(self, kind, network):
        return None if kind in self.milliseconds else "not in this type"

    def build(self, network, kind, stem):
        path = stem.with_name(stem.name + ".made")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(kind)
        self.model = network.model
        return Built.of(path, note="as made")

    def usage(self, file, kind):
        return []

    def open(self, path, threads=1, shape=None):
        kind = path.read_text()
        inner = OnnxRuntime().open(_saved(self.model, path))

        def call(array):
            end = time.perf_counter() + self.milliseconds[kind] / 1e3
            y = [self.says(kind, values) for values in inner.call(array)]
            while time.perf_counter() < end:
                pass
            return y

        return Program(call, inner.inputs)


def _saved(model: onnx.ModelProto, beside: Path) -> Path:
    path = beside.with_suffix(".onnx")
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def samples(network: onnx.ModelProto) -> Samples:
    arrays = [(np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32),) for seed in range(30)]
    labels = np.asarray(outputs(network, arrays[10:])[0]).argmax(1)
    labels[:5] = (labels[:5] + 1) % 5  # the source is right on 15 of 20
    return Samples(arrays[:10], arrays[10:], labels)


def chosen(network, samples, folder, *runtimes: Runtime, **options) -> Choice:
    wanted = Wanted([OnnxRuntime(), *runtimes], options.pop("kinds", KINDS))
    first = {"runs": Runs(most=40), "max_drop": 1.0, **options}
    return choose(Network(network), samples, folder, wanted=wanted, **first)


def row(choice: Choice, name: str):
    return next(candidate for candidate in choice.candidates if candidate.name == name)


def test_the_rows_are_those_that_checks_rely_on(network, samples, tmp_path) -> None:
    choice = chosen(network, samples, tmp_path)
    rows = [candidate.row() for candidate in choice.candidates]
    assert all(list(made) == KEYS for made in rows)
    assert [(made["runtime"], made["type"]) for made in rows] == [("onnxruntime", kind) for kind in KINDS]
    assert rows[0]["metric"] == 75 and rows[0]["top1_agreement"] == 1
    assert rows[0]["size_bytes"] == (tmp_path / "model-onnxruntime-fp32.onnx").stat().st_size
    assert 0 < rows[0]["latency_ms"] <= rows[0]["p90_ms"]
    assert rows[1]["latency_ms"] is None and "bf16" in rows[1]["refused"]
    assert "U8S8" in choice.table() or "S8S8" in choice.table()
    # On a network this small int8 costs more than it saves; whichever it is, the rule holds.
    if rows[2]["refused"] is None:
        assert choice.winner is row(choice, "onnxruntime int8")
    else:
        assert "not surely faster than onnxruntime fp32" in rows[2]["refused"]
        assert choice.winner is choice.candidates[0]


def test_a_slower_int8_is_never_handed_out(network, samples, tmp_path) -> None:
    slow = Made(milliseconds={"fp32": 0.0, "int8": 1.5})
    choice = chosen(network, samples, tmp_path, slow)
    assert choice.winner is not None and choice.winner.kind == "fp32"
    assert "not surely faster" in (row(choice, "made int8").refused or "")
    assert row(choice, "made int8").latency_ms is not None


def test_the_fastest_wins_and_the_sentence_says_why(network, samples, tmp_path) -> None:
    # As if the float kernels were slow: fp32 of the same runtime is what int8 must beat.
    quick = Made(name="quick", milliseconds={"fp32": 0.0, "int8": 0.0})
    slow = Made(name="slow", milliseconds={"fp32": 3.0, "bf16": 2.0})
    choice = chosen(network, samples, tmp_path, quick, slow, kinds=("fp32", "bf16"))
    assert choice.winner is not None and choice.winner.runtime.name in ("onnxruntime", "quick")
    assert f"{choice.winner.latency_ms:.3g} ms" in choice.why
    assert row(choice, "slow fp32").ratio.low > 5  # type: ignore[union-attr]
    assert "not surely faster" in (row(choice, "slow bf16").refused or "")


def test_each_gate_has_its_reason(network, samples, tmp_path) -> None:
    def says(kind: str, y: np.ndarray) -> np.ndarray:
        return {"fp32": y + 1, "bf16": y * np.nan, "int8": -y}[kind]

    choice = chosen(network, samples, tmp_path, Made(says=says))
    assert "computes something else" in (row(choice, "made fp32").refused or "")
    assert row(choice, "made bf16").refused == "output 'logits' has values that are not numbers"
    assert row(choice, "made bf16").latency_ms is None
    lost = row(choice, "made int8")
    assert "points of accuracy, 1 allowed" in (lost.refused or "")
    assert lost.latency_ms is not None  # the trade is shown though it may not be taken


def test_what_is_missing_or_fails_is_a_row(network, samples, tmp_path) -> None:
    class Unable(Made):
        def build(self, network, kind, stem):
            raise Unfit("no such operator here")

    class Falls(Made):
        def open(self, path, threads=1, shape=None):
            raise RuntimeError("segment\nviolation")

    others = (Made(name="absent", there=False), Unable(name="unable"), Falls(name="falls"))
    choice = chosen(network, samples, tmp_path, *others)
    assert [c.kind for c in choice.candidates if c.runtime.name == "absent"] == ["fp32"]
    assert row(choice, "absent fp32").refused == "not installed: pip install 'edgewright[made]'"
    assert row(choice, "unable int8").refused == "no such operator here"
    assert row(choice, "falls fp32").refused == "fails when it runs (segment violation)"
    assert choice.winner is not None


def test_nothing_that_may_win_gives_the_table(network, samples, tmp_path) -> None:
    bad = Made(says=lambda kind, y: -y)
    with pytest.raises(NothingFits, match="made int8: output 'logits' loses") as caught:
        choose(Network(network), samples, tmp_path, wanted=Wanted([bad], ["int8"]), max_drop=0.5, runs=Runs(most=20))
    assert caught.value.exit_code == 3
    choice = caught.value.choice
    assert choice.winner is None
    assert "made int8" in choice.table()
    assert row(choice, "onnxruntime fp32").refused == UNASKED
    assert row(choice, "made int8").latency_ms is not None


def test_a_larger_drop_lets_more_in(network, samples, tmp_path) -> None:
    def says(kind: str, y: np.ndarray) -> np.ndarray:
        return y if kind == "fp32" else np.roll(y, 1, 1)  # always another class

    wanted, runs = Wanted([Made(says=says, milliseconds={"int8": 0.0})], ["int8"]), Runs(most=20)
    lost = 75 - 100 * 5 / 20  # rolled by one, it is right where the labels were moved by one
    with pytest.raises(NothingFits, match=f"loses {lost:.2f} points"):
        choose(Network(network), samples, tmp_path / "a", wanted=wanted, max_drop=lost - 1, runs=runs)
    with pytest.raises(NothingFits, match="not surely faster"):  # now accurate enough; still it must be faster
        choose(Network(network), samples, tmp_path / "b", wanted=wanted, max_drop=100, runs=runs)


def test_a_source_that_gives_no_numbers(network, samples, tmp_path) -> None:
    with pytest.raises(BadInput, match="not numbers"):
        chosen(network, samples, tmp_path, source=lambda sample: [np.full((1, 5), np.nan)])


def test_a_network_that_guesses_is_doubted(network, samples, tmp_path, capsys) -> None:
    chosen(network, samples, tmp_path / "a", kinds=["fp32"])
    assert "by chance" not in capsys.readouterr().err
    wrong = Samples(
        samples.calibration, samples.comparison, (np.asarray(outputs(network, samples.comparison)[0]).argmax(1) + 1) % 5
    )
    chosen(network, wrong, tmp_path / "b", kinds=["fp32"])
    assert "has accuracy 0.00 % on these samples, no more than by chance" in capsys.readouterr().err


def test_the_drop_must_be_sensible(network, samples, tmp_path) -> None:
    for drop in (-1, 101, float("nan")):
        with pytest.raises(BadInput, match="points of accuracy, from 0 to 100"):
            chosen(network, samples, tmp_path, max_drop=drop)


def test_empty_calibration_data(network, samples, tmp_path) -> None:
    with pytest.raises(BadInput, match="calibration data is empty"):
        chosen(network, Samples([], samples.comparison, None), tmp_path)


def test_pairs() -> None:
    found = Wanted([Made(), Made(name="absent", there=False)]).pairs()
    assert [(runtime.name, kind) for runtime, kind in found] == [
        ("made", "fp32"), ("made", "bf16"), ("made", "int8"), ("absent", "fp32"),
    ]  # fmt: skip
