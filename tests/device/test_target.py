"""Targets as data: files are read strictly, laws count as they say, boards keep their limits."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.cost import Budget, Cost
from edgewright.core.errors import BadInput
from edgewright.device.base import FILE_BYTES, FILE_BYTES_PER_OP
from edgewright.device.board.board import Board
from edgewright.device.board.target import LAYERS, Target, read_target, save_target, shipped_targets, targets
from edgewright.device.resolve import devices, make_device
from edgewright.device.table.pieces import cut
from edgewright.export.onnx import export_onnx
from edgewright.ir.from_onnx import read_work
from edgewright.ir.graph import Graph, GraphBuilder, count_macs, count_params
from edgewright.ir.liveness import graph_peak_bytes
from edgewright.ir.op import Op
from edgewright.ir.to_onnx import to_onnx

LAW = {
    "clock_mhz": 100.0,
    "cycles_per_mac": {"dense": 2.0, "pointwise": 3.0, "depthwise": 5.0, "linear": 7.0},
    "operator_cycles": 11.0,
    "source": "made up",
}
BOARD = {
    "name": "my-board",
    "summary": "A board.",
    "source": "its datasheet",
    "runtime": "mine",
    "types": ["int8"],
    "forbidden": ["sigmoid"],
    "ram_kb": 20,
    "flash_kb": 64,
    "law": LAW,
}


@pytest.fixture
def network() -> Graph:
    """5 channels of 9 x 7: dense, depthwise (stride 2) and pointwise convolutions, a ReLU, pooled, classified."""
    shapes = ((5, 9, 7), (6, 9, 7), (6, 5, 4), (8, 5, 4), (8, 5, 4), (8, 1, 1), (8,), (3,))
    ops = (
        Op("conv", (0,), 1, kernel=3),
        Op("conv", (1,), 2, kernel=3, stride=2, groups=6),
        Op("conv", (2,), 3),
        Op("relu", (3,), 4),
        Op("global_pool", (4,), 5),
        Op("flatten", (5,), 6),
        Op("linear", (6,), 7),
    )
    return Graph(shapes, ops)


@pytest.fixture
def board() -> Board:
    return Board(Target.parse(BOARD, "board.yaml"))


def test_the_law_counts_cycles_by_kind_of_layer(network: Graph, board: Board) -> None:
    macs = {"dense": 6 * 5 * 9 * 63, "depthwise": 6 * 9 * 20, "pointwise": 8 * 6 * 20, "linear": 24}
    assert sum(macs.values()) == count_macs(network)
    cycles = sum(LAW["cycles_per_mac"][kind] * count for kind, count in macs.items())
    operators = len(cut(network)[0])
    model = board.latency_model([])
    assert model.predict([("net", network)]) == pytest.approx((cycles + 11 * operators) / 100 / 1e3)
    assert model.how == "law"
    (latency,) = board.measure([to_onnx(network)])
    assert latency.cost().how == "law"
    found = [work for work in read_work(to_onnx(network)) if work[0] in LAYERS]
    assert sorted(found) == sorted(macs.items())


class Mixed(nn.Module):
    """Depthwise (one with a multiplier), grouped, 1x1 and 7x7 convolutions, one of a single channel, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.mono, self.wide = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 12, 7, 1, 3)
        self.alone, self.more = nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.Conv2d(12, 24, 5, 1, 2, groups=12)
        self.grouped, self.mixed = nn.Conv2d(24, 12, 3, 1, 1, groups=4), nn.Conv2d(12, 12, 1, groups=3)
        self.last, self.head = nn.Conv2d(12, 10, 1), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.wide(torch.relu(self.mono(x))))
        y = functional.silu(self.more(torch.relu(self.alone(x))))
        x = torch.relu(self.mixed(torch.relu(self.grouped(y))) + x)
        return self.head(self.last(x).mean((2, 3), keepdim=True).flatten(1))


def mixed() -> Graph:
    builder = GraphBuilder((1, 13, 10))
    x = builder.relu(builder.conv(builder.relu(builder.conv(0, 8, 3, 2)), 12, 7))
    y = builder.swish(builder.conv(builder.relu(builder.conv(x, 12, 3, 1, 12)), 24, 5, 1, 12))
    y = builder.conv(builder.relu(builder.conv(y, 12, 3, 1, 4)), 12, 1, 1, 3)
    x = builder.conv(builder.relu(builder.add(y, x)), 10)
    builder.linear(builder.flatten(builder.global_pool(x)), 3)
    return builder.graph()


def test_a_network_costs_the_same_in_the_search_and_as_a_file(board: Board, tmp_path: Path) -> None:
    """Grouped convolutions were depthwise to the search and dense in the file; there activations were operators."""
    graph = mixed()
    export_onnx(Mixed(), (1, 13, 10), tmp_path / "m.onnx")
    searched = board.latency_model([]).predict([("net", graph)])
    assert [latency.median_ms for latency in board.measure([to_onnx(graph), tmp_path / "m.onnx"])] == pytest.approx(
        [searched, searched]
    )
    work = dict.fromkeys(LAYERS, 0)
    for layer, macs in read_work(tmp_path / "m.onnx"):
        work |= {layer: work[layer] + macs} if layer in work else {}
    assert work == {
        "dense": 35 * (8 * 9 + 12 * 8 * 49 + 12 * 6 * 9),
        "pointwise": 35 * (12 * 4 + 10 * 12),
        "depthwise": 35 * (12 * 9 + 24 * 25),
        "linear": 30,
    }
    assert sum(work.values()) == count_macs(graph)


def test_a_file_from_pytorch_is_read_as_it_computes(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 5), padding=(1, 2), groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 42, 5)
    )
    export_onnx(model, (3, 6, 7), tmp_path / "m.onnx")
    found = [work for work in read_work(tmp_path / "m.onnx") if work[1]]
    assert found == [("dense", 4 * 3 * 15 * 42), ("linear", 4 * 42 * 5)]


def test_sizes_and_memory_are_of_the_boards_type(network: Graph, board: Board) -> None:
    costs = board.costs(network)
    assert costs["peak_memory"].value == graph_peak_bytes(network) // 4
    assert costs["size"].value == count_params(network) + 7 * FILE_BYTES_PER_OP + FILE_BYTES
    assert board.ceilings() == {"peak_memory": 20 * 1024, "size": 64 * 1024}
    assert Budget(latency_ms=3, size_mb=1.0).within(board.ceilings()) == Budget(
        latency_ms=3, size_mb=0.0625, peak_memory_kb=20
    )
    assert Budget(size_mb=0.03).within(board.ceilings()).size_mb == 0.03


def test_operators_that_it_cannot_run_are_named(network: Graph, board: Board) -> None:
    assert board.refused(network) == []
    last = len(network.shapes)
    gated = Graph((*network.shapes, (3,)), (*network.ops, Op("sigmoid", (last - 1,), last)))
    assert board.refused(gated) == ["sigmoid"]


ENERGY = {"pj_per_mac": 4.0, "pj_per_byte": 150.0, "mw": 25.0, "source": "made up"}


def test_energy_is_by_its_law_and_area_as_the_file_says(network: Graph, tmp_path: Path) -> None:
    """By hand: the convolution with its activation is one, a flatten moves nothing, a number takes a byte."""
    board = Board(Target.parse({**BOARD, "energy": ENERGY, "area_mm2": 12.5}, "board.yaml"))
    activations = (315 + 378) + (378 + 120) + (120 + 160) + (160 + 8) + (8 + 3)
    weights = 6 * 5 * 9 + 6 * 9 + 8 * 6 + 3 * 8
    ms = board.latency_model([]).predict([("net", network)])
    expected = 1e-9 * (4 * count_macs(network) + 150 * (activations + weights)) + 25 * ms / 1000
    costs = board.costs(network)
    assert costs["energy"].value == pytest.approx(expected)
    assert (costs["energy"].unit, costs["energy"].how) == ("mJ", "law")
    assert costs["area"] == Cost(value=12.5, unit="mm2", how="given")
    path = tmp_path / "n.onnx"
    path.write_bytes(to_onnx(network))
    told = board.file_costs(path, count_params(network))
    assert told["energy"].value == pytest.approx(expected) and told["area"] == costs["area"]
    board.check(["energy", "area", "latency", "macs"])


def test_a_cost_that_a_device_does_not_give_is_refused() -> None:
    board = Board(Target.parse({**BOARD, "energy": {**ENERGY, "mw": 0}, "law": None}, "board.yaml"))
    assert board.gives == {"size", "peak_memory", "macs", "params", "energy"}
    for device, name, words in (
        (board, "area", "my-board does not say the chip area of a network; leave area_mm2 out, or"),
        (board, "latency", "nobody has said how fast my-board is"),
        (make_device("cpu"), "energy", "cpu does not say the energy of a network; leave energy_mj out, or"),
    ):
        with pytest.raises(BadInput, match=words):
            device.check(["macs", name])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"energy": {"source": "nobody"}}, "energy needs one of pj_per_mac, pj_per_byte and mw, above zero"),
        ({"energy": ENERGY, "law": None}, "energy: mw needs a law, which says for how long"),
        ({"energy": {**ENERGY, "pj_per_mac": -1}}, "'energy.pj_per_mac'"),
        ({"area_mm2": 0}, "'area_mm2'"),
    ],
)
def test_what_a_file_cannot_say_of_energy_and_area(changes: dict, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Target.parse({**BOARD, **changes}, "board.yaml")


def test_without_a_law_a_latency_ceiling_is_refused_and_latency_is_this_machines() -> None:
    board = make_device("raspberry-pi-4", threads=4)
    board.check(["size"])
    with pytest.raises(BadInput, match="nobody has said how fast raspberry-pi-4 is"):
        board.check(["latency"])
    assert board.identity()["latency_of"] == "this machine"
    with pytest.raises(BadInput, match="has 4 cores; 5 threads"):
        make_device("raspberry-pi-4", threads=5)


def test_what_is_shipped_is_whole() -> None:
    found = shipped_targets()
    assert {"raspberry-pi-4", "raspberry-pi-5", "stm32f746", "arm-phone"} <= set(found)
    assert (found["stm32f746"].ram_kb, found["stm32f746"].flash_kb) == (320, 1024)
    for name, target in found.items():
        assert target.name == name and target.summary.endswith(".") and make_device(name).ceilings()


def test_a_users_own_board_is_kept_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DEVICES", str(tmp_path / "devices"))
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump(BOARD))
    target = read_target(path)
    assert save_target(target).parent == tmp_path / "devices"
    assert targets()["my-board"] == target and devices()["my-board"].summary == target.summary
    by_name, by_file = make_device("my-board"), make_device(str(path))
    assert by_name.identity() == by_file.identity()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ram_bk": 3}, "did you mean 'ram_kb'"),
        ({"types": []}, "'types'"),
        ({"types": ["int4"]}, "'types.0'"),
        ({"forbidden": ["fly"]}, "'forbidden.0'"),
        ({"name": "../x"}, "'name'"),
        ({"ram_kb": -1}, "'ram_kb'"),
        ({"law": LAW | {"cycles_per_mac": {"dense": 1.0}}}, "cycles_per_mac needs dense, pointwise"),
        ({"law": LAW | {"clock_mhz": 0}}, "'law.clock_mhz'"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump(BOARD | change))
    with pytest.raises(BadInput, match=r"board\.yaml: ") as error:
        read_target(path)
    assert words in str(error.value)


def test_what_is_no_mapping_and_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "board.yaml").write_text("- 1\n")
    with pytest.raises(BadInput, match="a mapping"):
        read_target(tmp_path / "board.yaml")
    with pytest.raises(BadInput, match="not a readable ONNX model"):
        read_work(b"nonsense")
    with pytest.raises(BadInput, match="no such file"):
        read_work(tmp_path / "none.onnx")
