"""Files for boards: nothing is measured, limits are kept, an operator that a board lacks is named."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.core.errors import BadInput
from edgewright.device.board.board import Board
from edgewright.device.board.target import Law, Target
from edgewright.export.choose.candidates import Wanted
from edgewright.export.choose.choice import Choice, NothingFits
from edgewright.export.choose.elsewhere import choose_elsewhere, files_for, refuse_operators
from edgewright.export.choose.samples import Samples
from edgewright.export.running import outputs
from edgewright.export.runtimes.base import Network
from edgewright.export.runtimes.resolve import runtimes
from edgewright.export.ship.ship import ship

SHAPE = (1, 3, 12, 20)
LAW = Law(clock_mhz=100, cycles_per_mac={"dense": 1, "pointwise": 2, "depthwise": 3, "linear": 4}, source="made up")


def target(**changes) -> Board:
    words = {"name": "board", "summary": "", "source": "", "runtime": "onnxruntime", "types": ("int8",), **changes}
    return Board(Target(**words))


@pytest.fixture(scope="module")
def samples(network: onnx.ModelProto) -> Samples:
    arrays = [(np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32),) for seed in range(30)]
    return Samples(arrays[:10], arrays[10:], np.asarray(outputs(network, arrays[10:])[0]).argmax(1))


def chosen(network: onnx.ModelProto, samples: Samples, folder: Path, board: Board, **options) -> Choice:
    return choose_elsewhere(Network(network), samples, folder, device=board, max_drop=5.0, **options)


def test_the_latency_is_the_laws(network, samples, tmp_path) -> None:
    choice = chosen(network, samples, tmp_path, target(law=LAW))
    (row,) = choice.candidates
    # dense 3x3 from 3 to 8 at 6x10, depthwise 3x3 of 8, pointwise 8 to 16, linear 16 to 5
    cycles = 60 * 8 * 27 * 1 + 60 * 8 * 9 * 3 + 60 * 16 * 8 * 2 + 16 * 5 * 4
    assert row.latency_ms == pytest.approx(cycles / 100e3)
    assert (row.p90_ms, row.ratio, choice.runs, choice.latency_of) == (None, None, 0, "law")
    assert choice.winner is row and "a model's figure" in choice.why
    assert "by law" in choice.table() and "nothing was measured on board" in choice.table()
    assert "S8S8" in choice.table()


def test_without_a_law_the_smallest_wins_and_no_latency_is_told(network, samples, tmp_path) -> None:
    choice = chosen(network, samples, tmp_path, target(types=("fp32", "int8")))
    assert [row.kind for row in choice.candidates] == ["fp32", "int8"]
    assert all(row.latency_ms is None and row.refused is None for row in choice.candidates)
    sizes = {row.kind: row.built.size_bytes for row in choice.candidates if row.built}
    assert choice.winner is not None and sizes[choice.winner.kind] == min(sizes.values())
    assert "how fast it is there is not known" in choice.why and choice.latency_of == "unknown"
    assert all(not candidate["latency_ms"] for candidate in choice.record()["candidates"])


def test_a_law_is_of_its_first_type_only(network, samples, tmp_path) -> None:
    choice = chosen(network, samples, tmp_path, target(types=("fp32", "int8"), law=LAW))
    assert [row.latency_ms is None for row in choice.candidates] == [False, True]
    assert choice.winner is choice.candidates[0]


def test_memories_are_kept(network, samples, tmp_path) -> None:
    with pytest.raises(NothingFits, match=r"onnxruntime int8: needs [\d.]+ KB of flash, board has 1 KB") as caught:
        chosen(network, samples, tmp_path / "a", target(flash_kb=1))
    assert caught.value.exit_code == 3
    # The two largest tensors that meet: 8 and 16 channels of 6x10, a byte a number in int8, four in float.
    choice = chosen(network, samples, tmp_path / "b", target(types=("fp32", "int8"), ram_kb=2.5))
    refused = {row.kind: row.refused for row in choice.candidates}
    assert refused["int8"] is None
    assert refused["fp32"] == "needs 5.7 KB of RAM for activations (most at 'hardswish'), board has 2.5 KB"


def test_what_a_target_takes() -> None:
    assert files_for(target(runtime="executorch")) == ("executorch",)
    assert files_for(target(runtime="tflite-micro")) == ("litert",)
    assert files_for(target(runtime="x-cube-ai"))[0] == "onnxruntime"
    assert files_for(target(runtime="a tool of my own")) == ("onnxruntime",)


def test_what_it_does_not_take_is_one_sentence(network, samples, tmp_path) -> None:
    with pytest.raises(BadInput, match="board takes int8 in files of onnxruntime; nothing of that was asked for"):
        chosen(network, samples, tmp_path, target(), wanted=Wanted(kinds=("fp32",)))
    with pytest.raises(BadInput, match="board takes int8 in files of executorch"):
        chosen(network, samples, tmp_path, target(runtime="executorch"), wanted=Wanted([runtimes()["onnxruntime"]]))


def test_forbidden_operators_are_named_with_their_node(network: onnx.ModelProto) -> None:
    refuse_operators(network, target(forbidden=("sigmoid", "concat")))
    with pytest.raises(BadInput, match="board cannot run node '6', a 'HardSwish': its file forbids hardsigmoid"):
        refuse_operators(network, target(forbidden=("hardsigmoid",)))


def test_a_gated_sigmoid_is_a_swish() -> None:
    def model(other: str) -> onnx.ModelProto:
        nodes = [helper.make_node("Sigmoid", ["x"], ["s"], name="gate"), helper.make_node("Mul", [other, "s"], ["y"])]
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes, "g", [info("x", TensorProto.FLOAT, (1, 4))], [info("y", TensorProto.FLOAT, (1, 4))],
            [numpy_helper.from_array(np.ones(4, np.float32), "w")],
        )  # fmt: skip
        return helper.make_model(graph)

    refuse_operators(model("x"), target(forbidden=("sigmoid",)))
    refuse_operators(model("w"), target(forbidden=("swish",)))
    for other, kind in (("x", "swish"), ("w", "sigmoid")):
        with pytest.raises(BadInput, match=f"node 'gate', a 'Sigmoid': its file forbids {kind}"):
            refuse_operators(model(other), target(forbidden=(kind,)))


def test_shipping_for_a_board_says_so_everywhere(digits_run, tmp_path: Path) -> None:
    shipped = ship(digits_run.path, device="stm32f746", out=tmp_path / "out", max_drop=5.0)
    summary = shipped.summary()
    assert (summary["target"], summary["latency_of"]) == ("stm32f746", "law")
    assert summary["winner"]["latency_ms"] > 0.5  # a microcontroller's, not this machine's 0.02 ms
    record = json.loads(shipped.record.read_text())
    assert (record["target"], record["latency_of"], record["measured"]) == ("stm32f746", "law", None)
    page = shipped.file.with_name("MODEL_CARD.md").read_text()
    assert "Nothing was measured on stm32f746" in page and "runs of each" not in page
    texts = {entry.key: entry.value for entry in onnx.load(shipped.file).metadata_props}
    assert json.loads(texts["edgewright.export"])["latency_of"] == "law"
