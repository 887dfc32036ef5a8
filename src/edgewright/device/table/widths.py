"""What layers of given shapes take on a device, measured: each in its place between other layers, many in one file.

prices = device.prices(pieces)
prices(piece)                      # microseconds; one that was not among them is interpolated from its kin
"""

import time
from collections.abc import Callable, Iterable, Sequence
from math import prod

from edgewright.core.progress import progress
from edgewright.device.profile import Profiler
from edgewright.device.table.interpolate import fit_families
from edgewright.device.table.pieces import Piece
from edgewright.device.table.profiled import profile_pieces
from edgewright.device.table.table import Calibration, LatencyTable, piece_us
from edgewright.ir.counts import numbers
from edgewright.ir.graph import Graph, GraphBuilder

Prices = Callable[[Piece], float]
MOST_PIECES = 48  # in one file
MOST_WEIGHTS = 1 << 24  # numbers, 64 MB
NARROW = 8
PROFILER_US = 2.0  # what the profiler adds to a node


def measured_prices(pieces: Iterable[Piece], device: Profiler, table: LatencyTable, seconds: float = 60) -> Prices:
    """Microseconds there of any piece like these: those that the table lacks are measured first, for at most about
    `seconds`. Interpolated where neither table nor time had them."""
    known = set(table.read())
    missing = list(dict.fromkeys(piece for piece in pieces if piece.key not in known))
    begun = time.perf_counter()
    with device.steady(), progress("Layers measured", total=len(missing)) as bar:
        for files in _files(missing):
            if time.perf_counter() - begun > seconds:
                break
            table.add(profile_pieces(together(files), device, runs=12))
            bar.advance(len(files))
    entries = table.read()
    calibration = Calibration(base_us=0.0, scale=1.0, node_us=PROFILER_US)
    families = fit_families({key: calibration.net_us(*entry) for key, entry in entries.items()})
    found: dict[Piece, float] = {}

    def price(piece: Piece) -> float:
        if piece not in found:
            found[piece] = piece_us(piece.key, entries, families, calibration)
        return found[piece]

    return price


def _files(pieces: Sequence[Piece]) -> Iterable[list[Piece]]:
    """Pieces that read images of one size, not too many at a time."""
    sizes: dict[tuple[int, ...], list[Piece]] = {}
    for piece in pieces:
        sizes.setdefault(piece.source[1:], []).append(piece)
    for same in sizes.values():
        part: list[Piece] = []
        for piece in same:
            if part and (
                len(part) == MOST_PIECES or sum(numbers(one.work.weight) for one in (*part, piece)) > MOST_WEIGHTS
            ):
                yield part
                part = []
            part.append(piece)
        yield part


def together(pieces: Sequence[Piece]) -> Graph:
    """One graph with all these, for images of one size: each reads a 1x1 convolution and is read by a pooling, so that
    the runtime's own layout holds before and after it, as it does inside a network."""
    size = pieces[0].source[1:]
    builder = GraphBuilder((NARROW, *size))
    entries: dict[int, int] = {}
    ends: list[int] = []

    def entry(width: int) -> int:
        if width not in entries:
            entries[width] = builder.conv(0, width) if size else builder.linear(0, width)
            ends.append(_vector(builder, entries[width]))  # read twice: what follows is not fused into it
        return entries[width]

    for piece in pieces:
        ends.append(_vector(builder, _emit(builder, piece, entry)))
    builder.linear(builder.concat(*ends), NARROW)
    return builder.graph()


def _emit(builder: GraphBuilder, piece: Piece, entry: Callable[[int], int]) -> int:
    x = entry(piece.source[0])
    if piece.kind == "conv":
        other = (
            x if piece.source == piece.result or not piece.add else builder.conv(0, piece.result[0], 1, piece.stride)
        )
        made = builder.conv(x, piece.result[0], piece.kernel, piece.stride, piece.groups, dilation=piece.dilation)
        if piece.add:
            made = builder.add(made, other)  # fused into the later of the two
        return builder.relu(made) if piece.activation else made
    simple = {
        "linear": lambda: builder.linear(x, piece.result[0]),
        "conv_transpose": lambda: builder.conv_transpose(x, piece.result[0], piece.kernel, piece.stride, piece.groups),
        "upsample_nearest": lambda: builder.upsample(x, _factor(piece)),
        "upsample_linear": lambda: builder.upsample(x, _factor(piece), linear=True),
        "add": lambda: builder.add(x, x),
        "mul": lambda: builder.mul(x, x),
        "global_pool": lambda: builder.global_pool(x),
        "avg_pool": lambda: builder.avg_pool(x, piece.kernel, piece.stride),
        "swish": lambda: builder.swish(x),
        "sigmoid": lambda: builder.sigmoid(x),
    }
    return simple.get(piece.kind, lambda: builder.relu(x))()


def _factor(piece: Piece) -> int:
    """How many times as large it makes an image."""
    return max(1, round(piece.result[1] / piece.source[1]))


def _vector(builder: GraphBuilder, tensor: int) -> int:
    """A number a channel, to hold on to it."""
    shape = builder.shapes[tensor]
    if len(shape) == 1:
        return tensor
    return builder.flatten(tensor if prod(shape[1:]) == 1 else builder.global_pool(tensor))
