"""Sides of images and series: what a window makes of them, and what is added around them.

A size is one number for every axis, or one for each: 3 for a 3 x 3 kernel, (1, 5) for a flat one.
"""

from math import prod

Shape = tuple[int, ...]
Size = int | tuple[int, ...]
Pads = tuple[tuple[int, int], ...]  # before and after, for each axis


def each(size: Size, axes: int) -> tuple[int, ...]:
    """The size along each of so many axes; ValueError where it says another number of them."""
    if isinstance(size, int):
        return (size,) * axes
    if len(size) != axes:
        raise ValueError(f"{text(size)} says {len(size)} sizes where there are {axes} axes")
    return size


def plain(size: Size) -> Size:
    """One number where all are alike, so that equal operators are written alike."""
    return size if isinstance(size, int) or len(set(size)) != 1 else size[0]


def text(size: Size) -> str:
    """3, or 3x5."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def read(said: str) -> Size:
    """The size that `text` wrote; ValueError for other text."""
    return tuple(map(int, said.split("x"))) if "x" in said else int(said)


def area(size: Size, axes: int) -> int:
    """Pixels of a kernel over so many axes."""
    return size**axes if isinstance(size, int) else prod(size)


def side(size: Size) -> float:
    """One side that says as much: the geometric mean of several."""
    return size if isinstance(size, int) else prod(size) ** (1 / len(size))


def centred(kernel: Shape, dilation: Shape) -> Pads:
    """What keeps an odd kernel's output as large as its input, at stride 1: the same on both sides."""
    pads = [d * (k // 2) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((pad, pad) for pad in pads)


def covering(sides: Shape, kernel: Shape, stride: Shape) -> Pads:
    """What gives ceil(side / stride) windows: (kernel - 1) // 2 before, and after as much as the last one needs."""
    before = [(k - 1) // 2 for k in kernel]
    last = [(-(-n // s) - 1) * s + k for n, k, s in zip(sides, kernel, stride, strict=True)]
    return tuple((b, max(0, end - n - b)) for b, end, n in zip(before, last, sides, strict=True))


def cropped(kernel: Shape, stride: Shape) -> Pads:
    """What a transposed convolution takes off to give `stride` times the size; less than 0: rows added at the end."""
    spare = [k - s for k, s in zip(kernel, stride, strict=True)]
    before = [max(0, -(-s // 2)) for s in spare]
    return tuple((b, s - b) for b, s in zip(before, spare, strict=True))


def places(sides: Shape, pads: Pads, kernel: Shape, stride: Shape, dilation: Shape) -> Shape:
    """How many windows there are along each axis; ValueError where not even one."""
    found = tuple(
        (n + sum(pad) - d * (k - 1) - 1) // s + 1
        for n, pad, k, s, d in zip(sides, pads, kernel, stride, dilation, strict=True)
    )
    if min(found, default=1) < 1:
        raise ValueError(f"a kernel of {text(kernel)} has no place in {text(sides)}")
    return found


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of a sum or product of two tensors, sides of 1 repeated; ValueError where they do not fit."""
    if len(a) != len(b) or any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise ValueError(f"{a} and {b} cannot be added or multiplied")
    return tuple(map(max, a, b))
