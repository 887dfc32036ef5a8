"""Layers are measured as they are asked for, once, and others are interpolated."""

from pathlib import Path

import pytest

from edgewright.device.here.cpu import Cpu
from edgewright.device.table.pieces import Piece, cut
from edgewright.device.table.widths import together

PIECES = [
    Piece("conv", (8, 12, 9), (24, 12, 9), 3, 1, 1, activation=True),
    Piece("conv", (16, 12, 9), (16, 12, 9), 3, 1, 16),
    Piece("conv", (16, 12, 9), (32, 6, 5), 3, 2, 1, add=True, activation=True),
    Piece("swish", (16, 12, 9), (16, 12, 9)),
    Piece("global_pool", (24, 12, 9), (24, 1, 1)),
    Piece("linear", (40,), (16,)),
    Piece("conv", (8, 20, 1), (40, 20, 1)),
    Piece("conv", (16, 12, 9), (8, 6, 9), (3, 5), (2, 1), 4, dilation=(1, 2)),
    Piece("conv_transpose", (16, 12, 9), (8, 24, 18), 3, 2, 2),
    Piece("upsample_linear", (16, 12, 9), (16, 24, 18)),
]


def test_each_piece_stands_in_the_graph_as_it_was_asked_for() -> None:
    for size in {piece.source[1:] for piece in PIECES}:
        wanted = [piece for piece in PIECES if piece.source[1:] == size]
        assert {piece.key for piece in wanted} <= {piece.key for piece in cut(together(wanted))[0]}


def test_measured_once_and_wider_takes_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Piece("conv", (256, 12, 9), (256, 12, 9), 3)
    cpu = Cpu()
    price = cpu.prices([*PIECES, wide], cache=tmp_path)
    assert all(0 < price(piece) < 1e5 for piece in PIECES)
    assert price(wide) > 5 * price(PIECES[0])
    between = price(Piece("conv", (128, 12, 9), (128, 12, 9), 3))  # never measured
    assert price(PIECES[0]) < between < price(wide)
    monkeypatch.setattr(cpu, "profile", lambda *_, **__: pytest.fail("measured again"))
    assert cpu.prices(PIECES, cache=tmp_path)(wide) == price(wide)
