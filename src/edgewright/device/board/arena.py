"""Where each buffer lies in one arena: offline memory planning, also called dynamic storage allocation.

A buffer needs `bytes` from the step that makes it to the last step that reads it. Two that are alive at once must not
overlap. The arena is as large as the highest end; it is never smaller than the bound, the most bytes alive at once:

    arena = max_i (offset_i + bytes_i)  >=  bound = max_t sum_{i: first_i <= t <= last_i} bytes_i

Orders, each with a rule for the gap that is taken:

    size         largest first, into the smallest gap that holds it: greedy by size (LiteRT and TFLite Micro do so)
    execution    as the network runs, into the smallest gap among what is alive then: an online allocator (ONNX Runtime)
    best         the least of both; where that is above the bound, greedy by size again and again, each time with those
                 that reached highest moved towards the front; then, for up to `MOST` buffers, a search over orders that
                 is exact when it ends within `NODES` placements

An optimum can be pushed down until every buffer rests on the floor or on another that is alive with it; placed in the
order of its offsets, each at the lowest place that is free, it comes out again. The search goes through such orders.

Differs from the paper: greedy by breadth and shared objects are left out, which it finds no better for offsets; the
rounds and the search are added ("squeaky wheel" optimisation, Joslin and Clements, JAIR 1999).
Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", MLSys 2020, arXiv:2001.03288.
Checked against: brute force over all orders, and the arenas of three runtimes (tests/device/test_arena.py,
benchmarks/memory_plan.py).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

Order = Literal["best", "size", "execution"]
ROUNDS = 100  # of greedy by size, where one does not reach the bound
NODES = 4_000  # placements that the search tries at most: some tenths of a second
MOST = 20  # buffers that it tries to order; of more it sees too few orders to find anything


@dataclass(frozen=True, slots=True)
class Buffer:
    """Room for a tensor, or for several that take turns in it. first, last: steps, both included."""

    name: Hashable
    bytes: int
    first: int
    last: int

    def meets(self, other: "Buffer") -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """offsets: of the buffers, in their order.   bytes: of the whole.   bound: that no arena can be below.   order: the
    one that gave it.   optimal: known to be as small as can be."""

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    bytes: int
    bound: int
    order: str
    optimal: bool

    @property
    def peak_step(self) -> int:
        """The first step at which the most bytes are alive; 0 of an arena without buffers."""
        steps = sorted({buffer.first for buffer in self.buffers})
        return max(steps, key=lambda step: (_alive(self.buffers, step), -step), default=0)


def bound(buffers: Sequence[Buffer]) -> int:
    """The most bytes alive at once. It is reached where some buffer begins."""
    return max((_alive(buffers, step) for step in {buffer.first for buffer in buffers}), default=0)


def _alive(buffers: Sequence[Buffer], step: int) -> int:
    return sum(buffer.bytes for buffer in buffers if buffer.first <= step <= buffer.last)


def place(buffers: Sequence[Buffer], *, order: Order = "best", align: int = 1) -> Arena:
    """Give every buffer its offset, a multiple of `align`; sizes count as their next multiple of it.

    Errors: ValueError for a buffer that ends before it begins or has negative size, and for an `align` below 1.
    """
    if align < 1:
        raise ValueError(f"align must be at least 1 (got {align})")
    if wrong := [b for b in buffers if b.bytes < 0 or b.last < b.first]:
        raise ValueError(f"{wrong[0]}: a buffer has zero or more bytes and ends no sooner than it begins")
    padded = tuple(Buffer(b.name, -(-b.bytes // align) * align, b.first, b.last) for b in buffers)
    floor = bound(padded)
    ranks = _by_size(padded), sorted(range(len(padded)), key=lambda i: padded[i].first)
    tried = {name: _in_turn(padded, rank, snug=True) for name, rank in zip(("size", "execution"), ranks, strict=True)}
    if order != "best":
        tried = {order: tried[order]}
    name, offsets = min(tried.items(), key=lambda item: _top(padded, item[1]))
    known = _top(padded, offsets) == floor
    if order == "best" and not known:
        name, offsets = min((name, offsets), ("rounds", _rounds(padded, floor)), key=lambda pair: _top(padded, pair[1]))
        found, known = _search(padded, offsets, floor)
        name, offsets = ("search", found) if found != offsets else (name, offsets)
    return Arena(tuple(buffers), offsets, _top(padded, offsets), floor, name, known)


def _top(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    return max((offset + b.bytes for b, offset in zip(buffers, offsets, strict=True)), default=0)


def _by_size(buffers: Sequence[Buffer]) -> list[int]:
    return sorted(range(len(buffers)), key=lambda i: (-buffers[i].bytes, buffers[i].first))


def _rounds(buffers: Sequence[Buffer], floor: int) -> tuple[int, ...]:
    """The best of `ROUNDS` placements: what reached highest was placed too late, and goes one class further up."""
    blamed = [0] * len(buffers)
    order = _by_size(buffers)
    best, least = (), -1
    for _ in range(ROUNDS):
        offsets = _in_turn(buffers, order, snug=False)
        top = _top(buffers, offsets)
        if least < 0 or top < least:
            best, least = offsets, top
        if least == floor:
            break
        for i, offset in enumerate(offsets):
            blamed[i] += offset + buffers[i].bytes == top
        order.sort(key=lambda i: -blamed[i])  # stable: the order of before within a class
    return best


def _in_turn(buffers: Sequence[Buffer], order: Sequence[int], *, snug: bool) -> tuple[int, ...]:
    """Offsets by placing in `order`; snug: into the smallest gap that holds it, else into the lowest."""
    offsets: dict[int, int] = {}
    for i in order:
        offsets[i] = _gap(buffers[i], [(offsets[j], buffers[j]) for j in offsets], snug)
    return tuple(offsets[i] for i in range(len(buffers)))


def _gap(buffer: Buffer, placed: Sequence[tuple[int, Buffer]], snug: bool) -> int:
    """The offset of the gap that it takes between what is placed and alive with it."""
    end, best, least = 0, None, 0
    for offset, other in sorted(((o, b) for o, b in placed if b.meets(buffer)), key=lambda pair: pair[0]):
        room = offset - end
        if room >= buffer.bytes and (best is None or room < least):
            best, least = end, room
            if not snug:
                break
        end = max(end, offset + other.bytes)
    return end if best is None else best


def _search(buffers: Sequence[Buffer], offsets: tuple[int, ...], floor: int) -> tuple[tuple[int, ...], bool]:
    """Better offsets than these where there are any, and whether they are known to be the best."""
    if len(buffers) > MOST:
        return offsets, _top(buffers, offsets) == floor
    best, least, left = offsets, _top(buffers, offsets), NODES
    chosen: list[tuple[int, int]] = []  # buffer, offset: offsets never fall

    def deeper() -> bool:
        """False where the search was cut short, or need not go on."""
        nonlocal best, least, left
        if len(chosen) == len(buffers):
            best = tuple(offset for _, offset in sorted(chosen))
            least = _top(buffers, best)
            return least > floor
        taken, lowest = {i for i, _ in chosen}, chosen[-1] if chosen else (-1, 0)
        placed = [(offset, buffers[i]) for i, offset in chosen]
        options = sorted(
            (_gap(buffers[i], placed, False), -buffers[i].bytes, i) for i in range(len(buffers)) if i not in taken
        )
        if any(offset + buffers[i].bytes >= least for offset, _, i in options):
            return True  # nothing that comes later makes room for it
        for offset, _, i in options:
            if (offset, i) < (lowest[1], lowest[0]) or offset + buffers[i].bytes >= least:
                continue
            left -= 1
            if left < 0:
                return False
            chosen.append((i, offset))
            go_on = deeper()
            chosen.pop()
            if not go_on:
                return False
        return True

    finished = deeper()
    return best, finished or least == floor
