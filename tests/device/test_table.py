"""The table on disk, the pieces it is keyed by, and a calibrated model that replays exactly."""

import json
import random
import threading
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.device.here.cpu import Cpu
from edgewright.device.resolve import devices, make_device
from edgewright.device.table.calibrate import LeftOut, fit_calibration, interpolated
from edgewright.device.table.interpolate import fit_families
from edgewright.device.table.pieces import cut, place, read_piece, work
from edgewright.device.table.profiled import PieceTime, profile_pieces
from edgewright.device.table.table import LatencyModel, LatencyTable
from edgewright.ir.from_onnx import read_work
from edgewright.ir.graph import Graph, GraphBuilder, chain, count_macs
from edgewright.ir.to_onnx import to_onnx
from ir.test_to_onnx import reader, segmenter


def block(shape: tuple[int, ...], width: int, kernel: int, stride: int, expansion: int, squeeze: bool) -> Graph:
    builder = GraphBuilder(shape)
    x = builder.relu(builder.conv(0, shape[0] * expansion))
    x = builder.relu(builder.conv(x, shape[0] * expansion, kernel, stride, shape[0] * expansion))
    if squeeze:
        gate = builder.relu(builder.conv(builder.global_pool(x), 8))
        x = builder.mul(x, builder.hardsigmoid(builder.conv(gate, shape[0] * expansion)))
    x = builder.conv(x, width)
    if stride == 1 and width == shape[0]:
        builder.add(x, 0)
    return builder.graph()


def network(rng: random.Random) -> list[tuple[str, Graph]]:
    builder = GraphBuilder((3, 24, 20))
    builder.relu(builder.conv(0, 16, 3, 2))
    blocks = [("stem", builder.graph())]
    for index in range(rng.randint(1, 6)):
        shape = blocks[-1][1].output_shape
        width, kernel, stride = rng.choice((shape[0], 16, 24, 40)), rng.choice((3, 5)), rng.choice((1, 1, 2))
        blocks.append((f"b{index}", block(shape, width, kernel, stride, rng.randint(1, 4), rng.random() < 0.3)))
    builder = GraphBuilder(blocks[-1][1].output_shape)
    builder.linear(builder.flatten(builder.global_pool(builder.relu(builder.conv(0, 64)))), 10)
    return [*blocks, ("head", builder.graph())]


def times(graph: Graph, raw_us: float = 5.0) -> list[PieceTime]:
    return [PieceTime(piece, raw_us, 1) for piece in cut(graph)[0]]


def test_blocks_cut_alone_or_in_their_network_give_the_same_pieces() -> None:
    blocks = network(random.Random(1))
    alone = [piece for _, graph in blocks for piece in cut(graph)[0]]
    assert alone == cut(chain(graph for _, graph in blocks))[0]
    assert all(read_piece(piece.key) == piece for piece in alone)


def test_pieces_hold_what_is_fused() -> None:
    kinds = [(piece.family, piece.add, piece.activation) for piece in cut(block((16, 9, 7), 16, 3, 1, 2, True))[0]]
    assert kinds == [
        ("pointwise", False, True),
        ("depthwise", False, True),
        ("global_pool", False, False),
        ("pointwise", False, True),
        ("pointwise", False, True),
        ("mul", False, False),
        ("pointwise", True, False),
    ]


def test_what_a_network_gives_out_is_fused_into_nothing() -> None:
    builder = GraphBuilder((4, 9, 7))
    y = builder.conv(0, 4, 3)
    z = builder.relu(builder.add(y, 0))
    assert [piece.key for piece in cut(builder.graph(z))[0]] == ["conv+add+act 4x9x7>4x9x7 k3 s1 g1"]
    kept = builder.graph(z, y)
    assert [(piece.kind, piece.add) for piece in cut(kept)[0]] == [("conv", False), ("add", False), ("relu", False)]
    assert len(read_work(to_onnx(kept))) == 3 and len(read_work(to_onnx(builder.graph(z)))) == 1


def test_every_node_that_the_runtime_runs_belongs_to_a_piece() -> None:
    blocks = network(random.Random(3))
    profiled = profile_pieces(chain(graph for _, graph in blocks), Cpu(), seconds=0)
    assert [item.piece for item in profiled] == [piece for _, graph in blocks for piece in cut(graph)[0]]
    assert all(item.nodes >= 1 and item.raw_us > 0 for item in profiled)


@pytest.mark.parametrize("graph", [segmenter(), reader()], ids=["segmenter", "reader"])
def test_pieces_of_every_operator_are_written_profiled_and_placed(graph: Graph) -> None:
    """Uneven and dilated kernels, series, tokens, recurrences; three inputs to a head, two outputs."""
    profiled = profile_pieces(graph, Cpu(), seconds=0)
    assert [item.piece for item in profiled] == cut(graph)[0]
    for item in profiled:
        assert read_piece(item.piece.key) == item.piece
        assert np.isfinite(work(item.piece)).all() and np.isfinite(place(item.piece)).all()
        assert item.raw_us > 0 or item.nodes == 0
    assert sum(item.piece.work.macs for item in profiled) == count_macs(graph)


def test_entries_last_and_belong_to_their_device(tmp_path: Path) -> None:
    graph = block((8, 6, 5), 8, 3, 1, 2, False)
    for raw_us in (1.0, 9.0, 4.0):
        LatencyTable(tmp_path / "latency.db", "mine").add(times(graph, raw_us))
    assert set(LatencyTable(tmp_path / "latency.db", "mine").read().values()) == {(4.0, 1.0)}
    assert LatencyTable(tmp_path / "latency.db", "another").read() == {}


def test_only_the_latest_observations_count(tmp_path: Path) -> None:
    table, graph = LatencyTable(tmp_path / "latency.db", "mine"), block((8, 6, 5), 8, 3, 1, 2, False)
    for raw_us in [100.0] * 9 + [2.0] * 5:
        table.add(times(graph, raw_us))
    assert set(table.read().values()) == {(2.0, 1.0)}


def test_many_may_write_at_once(tmp_path: Path) -> None:
    def write(width: int) -> None:
        for height in range(1, 6):
            LatencyTable(tmp_path / "latency.db", "mine").add(times(block((width, height, 5), width, 3, 1, 2, False)))

    threads = [threading.Thread(target=write, args=(width,)) for width in (8, 16, 24, 32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(LatencyTable(tmp_path / "latency.db", "mine").read()) == 4 * 5 * 3


def test_a_broken_cache_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "latency.db"
    path.write_bytes(b"this is no database, it only has its name" * 100)
    table = LatencyTable(path, "mine")
    assert table.read() == {}
    table.add(times(block((8, 6, 5), 8, 3, 1, 2, False)))
    assert len(LatencyTable(path, "mine").read()) == 3
    assert len(list(tmp_path.glob("*.broken-*"))) == 1


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgewrightError, match="EDGEWRIGHT_CACHE"):
        LatencyTable(tmp_path / "file" / "latency.db", "mine")


def test_calibration_finds_the_law_that_made_the_numbers() -> None:
    rng = np.random.default_rng(0)
    raw, nodes = rng.uniform(100, 2000, 16), rng.integers(10, 60, 16)
    fit = fit_calibration(list(zip(raw, nodes, strict=True)), 8 + 1.1 * raw - 2.5 * nodes)
    predicted = fit.base_us + fit.scale * raw - fit.node_us * nodes
    np.testing.assert_allclose(predicted, 8 + 1.1 * raw - 2.5 * nodes, rtol=0.02)


def test_interpolation_follows_a_smooth_law() -> None:
    pieces = {
        piece.key: piece
        for width in (16, 32, 48, 64, 96, 128)
        for side in (4, 8, 12, 16)
        for piece in cut(block((width, side, side), width + 16, 3, 1, 2, False))[0]
    }

    def law(piece) -> float:
        return 1 + work(piece)[1] / 5e4 + work(piece)[3] / 4e3

    held_out = sorted(pieces)[::5]
    families = fit_families({key: law(piece) for key, piece in pieces.items() if key not in held_out})
    errors = [families[pieces[key].family].predict_us(pieces[key]) / law(pieces[key]) - 1 for key in held_out]
    assert np.max(np.abs(errors)) < 0.05


def whole(blocks) -> Graph:
    return chain(graph for _, graph in blocks)


def test_model_predicts_replays_and_shares(tmp_path: Path) -> None:
    rng = random.Random(5)
    networks = [network(rng) for _ in range(10)]
    unseen = [network(rng) for _ in range(5)]
    model = make_device("cpu").latency_model([whole(blocks) for blocks in networks], cache=tmp_path, seconds=3)
    again = LatencyModel.parse(json.loads(model.to_json()), "stored")
    for blocks in networks + unseen:
        assert again.predict(blocks) == model.predict(blocks) > 0
        assert sum(model.shares(blocks)) == pytest.approx(model.predict(blocks))
        assert all(share > 0 for share in model.shares(blocks))
    assert model.coverage(networks[0]) == 1
    # Loose, since tests run on busy machines; the benchmark has the figures.
    assert model.check.rank_correlation > 0.3 and model.check.networks == 10


def test_devices_are_found_by_name() -> None:
    assert all(device.summary and device.source for device in devices().values())
    assert make_device("cpu", 2).identity()["threads"] == 2
    with pytest.raises(BadInput, match="choose from cpu"):
        make_device("abacus")
    with pytest.raises(BadInput, match="at least 1"):
        make_device("cpu", 0)


def test_size_estimate_is_on_the_safe_side_of_the_file() -> None:
    graph = chain(graph for _, graph in network(random.Random(7)))
    estimate = make_device("cpu").costs(graph)["size"].value
    assert len(to_onnx(graph)) <= estimate <= 1.2 * len(to_onnx(graph))


def test_what_is_interpolated_too_low_is_raised() -> None:
    """Unseen pieces that take a quarter more than their kin says, in networks of other shares of them."""
    rng = random.Random(3)
    networks = [(rng.uniform(20, 400), rng.uniform(100, 900)) for _ in range(9)]
    left_out = [LeftOut(known + 1.25 * unseen, known, unseen) for known, unseen in networks]
    assert interpolated(left_out) == pytest.approx(1.25)
    odd = [*left_out[:-1], LeftOut(10 * left_out[-1].measured, *left_out[-1][1:])]  # one that was disturbed
    assert interpolated(odd) == pytest.approx(1.25)
    known = [LeftOut(known, known, 0.1 * known) for known, _ in networks]  # hardly anything is interpolated
    assert interpolated(known) == interpolated(left_out[:3]) == 1.0
    assert interpolated([LeftOut(4 * unseen, 0.0, unseen) for _, unseen in networks]) == 2.0
