"""Placements against brute force over all orders, by hand, and the invariants of every placement."""

from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.device.board.arena import Arena, Buffer, Order, bound, place


@st.composite
def some_buffers(draw: st.DrawFn, most: int = 25) -> list[Buffer]:
    count, steps = draw(st.integers(0, most)), draw(st.integers(1, 12))
    found = []
    for index in range(count):
        first = draw(st.integers(0, steps - 1))
        found.append(Buffer(index, draw(st.integers(0, 40)), first, draw(st.integers(first, steps - 1))))
    return found


def alive_at_most(buffers: list[Buffer], align: int = 1) -> int:
    """From the definition: every byte at every step."""
    steps = range(max((b.last for b in buffers), default=0) + 1)
    return max(sum(-(-b.bytes // align) * align for b in buffers if b.first <= step <= b.last) for step in steps)


def check(arena: Arena, buffers: list[Buffer], align: int) -> None:
    assert len(arena.offsets) == len(buffers)
    assert all(offset >= 0 and offset % align == 0 for offset in arena.offsets)
    assert all(offset + b.bytes <= arena.bytes for offset, b in zip(arena.offsets, buffers, strict=True))
    for (x, a), (y, b) in combinations(zip(arena.offsets, buffers, strict=True), 2):
        if set(range(a.first, a.last + 1)) & set(range(b.first, b.last + 1)) and a.bytes and b.bytes:
            assert x + a.bytes <= y or y + b.bytes <= x, (a, b)
    assert arena.bound == alive_at_most(buffers, align) <= arena.bytes
    if arena.bytes == arena.bound:
        assert arena.optimal


@given(some_buffers(), st.sampled_from(["best", "size", "execution"]), st.sampled_from([1, 4, 16]))
def test_what_is_alive_at_once_never_overlaps(buffers: list[Buffer], order: Order, align: int) -> None:
    arena = place(buffers, order=order, align=align)
    check(arena, buffers, align)
    assert bound(buffers) == alive_at_most(buffers)
    assert place(buffers, align=align).bytes <= arena.bytes
    assert place(buffers, order=order, align=align) == arena


def brute_force(buffers: list[Buffer]) -> int:
    """The least top over all orders of placing, each buffer as low as it can be, byte by byte."""
    least = sum(b.bytes for b in buffers)
    for order in permutations(buffers):
        placed: list[tuple[int, Buffer]] = []
        for b in order:
            near = [(o, p) for o, p in placed if not (p.last < b.first or b.last < p.first)]
            spots = sorted({0, *(o + p.bytes for o, p in near)})
            offset = next(s for s in spots if all(s + b.bytes <= o or o + p.bytes <= s for o, p in near))
            placed.append((offset, b))
        least = min(least, max(o + p.bytes for o, p in placed))
    return least


@given(some_buffers(most=6))
def test_the_best_is_brute_forces(buffers: list[Buffer]) -> None:
    arena = place(buffers)
    assert arena.optimal
    assert arena.bytes == (brute_force(buffers) if buffers else 0)


def test_where_the_bound_cannot_be_reached() -> None:
    """At most 6 bytes are alive at any step, and yet there is no placement in 6."""
    lives = [(3, 5, 5), (3, 0, 0), (1, 2, 3), (2, 4, 5), (2, 3, 4), (3, 0, 2), (2, 2, 4)]
    tight = [Buffer(index, *life) for index, life in enumerate(lives)]
    arena = place(tight)
    check(arena, tight, 1)
    assert (arena.bound, arena.bytes, brute_force(tight), arena.optimal) == (6, 7, 7, True)


def test_greedy_by_size_wastes_and_the_best_does_not() -> None:
    lives = [(1, 3, 5), (2, 2, 4), (3, 4, 4), (2, 1, 2), (2, 1, 3)]
    loose = [Buffer(index, *life) for index, life in enumerate(lives)]
    assert (place(loose, order="size").bytes, place(loose).bytes, bound(loose)) == (7, 6, 6)


def test_of_many_buffers_the_best_is_found_where_greedy_by_size_fails() -> None:
    """A chain as in mobile networks: each tensor meets only the next; what is largest takes the place of another."""
    sizes = [48, 64, 64, 32, 96, 24, 16, 48, 48, 16, 48, 12] * 4
    chain = [Buffer(index, size, index, index + 1) for index, size in enumerate(sizes)]
    arena = place(chain)
    check(arena, chain, 1)
    assert (place(chain, order="size").bytes, arena.bytes, arena.bound) == (160, 128, 128)


def test_an_online_allocator_wastes() -> None:
    # What is made first lies lowest, and what comes later finds only the gap of 3 below c: a at 0, b at 2, c at 3.
    chain = [Buffer("a", 2, 0, 1), Buffer("b", 1, 1, 2), Buffer("c", 6, 2, 3), Buffer("d", 4, 3, 4)]
    assert place(chain, order="execution").bytes == 13
    assert place(chain).bytes == bound(chain) == 10


def test_the_step_at_the_peak_is_named() -> None:
    arena = place([Buffer("a", 5, 0, 2), Buffer("b", 4, 2, 3), Buffer("c", 3, 3, 3), Buffer("d", 1, 3, 4)])
    assert (arena.peak_step, arena.bound) == (2, 9)
    assert place([]).bytes == place([]).peak_step == 0


def test_wrong_buffers_are_refused() -> None:
    with pytest.raises(ValueError, match="ends no sooner"):
        place([Buffer("a", 1, 3, 2)])
    with pytest.raises(ValueError, match="align"):
        place([], align=0)
