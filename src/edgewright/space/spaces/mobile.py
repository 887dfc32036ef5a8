"""The space of small convolutional networks: a stem, stages of blocks, a head, and the input's resolution.

Per stage: kind of block, depth, width, kernel, expansion, squeeze-excite, and where the image is halved. The image is
halved as often as leaves the last map at 4 to 14 pixels a side, so that 8 px digits are not strided away and 224 px
photographs are not carried whole through the network.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import nn

from edgewright.core.architecture import Architecture
from edgewright.core.errors import BadInput
from edgewright.core.tensors import Size, TensorSpec, compact, scaled, sides, size_text
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.blocks import Kind, Stage, ends_in_relu, mobile_parts, squeezed
from edgewright.model.head import Head
from edgewright.space.base import Framed, Space

KINDS: tuple[Kind, ...] = ("inverted", "fused", "separable", "basic")
KERNELS = (3, 5, 7)
EXPANSIONS: dict[Kind, tuple[int, ...]] = {
    "inverted": (1, 2, 3, 4, 6),
    "fused": (1, 2, 3, 4),
    "separable": (1,),
    "basic": (1,),
}
MAX_DEPTH = 6
MAX_WIDTH = 512
HEAD_FACTORS = (0, 1, 2, 4)  # the head's width over the last stage's
MAX_HEAD = 1280
SMALLEST_MAP, LARGEST_MAP = 4, 14
# Kind of block, expansion, width of the first stage at a width of 1, blocks of each stage.
CLASSICS: dict[str, tuple[Kind, int, float, tuple[int, ...]]] = {
    "plain": ("fused", 1, 32, (2, 2, 1, 1)),
    "residual": ("basic", 1, 32, (1, 1, 1, 1)),
    "inverted": ("inverted", 4, 24, (2, 2, 3, 2)),
}
CLASSIC_WIDTHS = (0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0)
SHORTEST = 2  # of the shorter side of an oblong map

Width = Annotated[int, Field(ge=8, le=MAX_WIDTH, multiple_of=8)]


class MobileArchitecture(Framed):
    """A network of the `mobile` space."""

    space: Literal["mobile"] = "mobile"
    stem_width: Width
    stem_stride: Literal[1, 2]
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=8)
    head_width: int = Field(ge=0, le=MAX_HEAD, multiple_of=8)

    @model_validator(mode="after")
    def _stages_are_of_the_space(self) -> "MobileArchitecture":
        for index, stage in enumerate(self.stages, 1):
            _check_stage(index, stage)
        return self


def _check_stage(index: int, stage: Stage) -> None:
    """Refuse, in words, what the space does not hold."""
    choices: dict[str, tuple[int, ...]] = {
        "kernel": KERNELS,
        "expansion": EXPANSIONS[stage.kind],
        "stride": (1, 2),
        "depth": tuple(range(1, MAX_DEPTH + 1)),
    }
    for name, allowed in choices.items():
        if getattr(stage, name) not in allowed:
            raise ValueError(f"stage {index}: {name} {getattr(stage, name)} is not one of {allowed} ({stage.kind})")
    if stage.width % 8 or not 8 <= stage.width <= MAX_WIDTH:
        raise ValueError(f"stage {index}: width {stage.width} is not a multiple of 8 from 8 to {MAX_WIDTH}")


class MobileSpace(Space):
    """`mobile` for one task.

    Networks take maps as large as the task's, or a little smaller ones.
    """

    name = "mobile"
    source = (
        "MobileNetV2 (arXiv:1801.04381), MnasNet (1807.11626), MobileNetV3 (1905.02244), EfficientNetV2 (2104.00298)"
    )
    summary = (
        "stem, stages of inverted / fused / separable / basic blocks with optional squeeze-excite, head, resolution"
    )

    def __init__(self, inputs: Sequence[TensorSpec], head: Head) -> None:
        super().__init__(inputs, head)
        side = max(self.size)
        self.num_stages = 3 if side <= 16 else 4 if side <= 64 else 5
        self.stem_strides: tuple[Literal[1, 2], ...] = (1,) if side < 48 else (1, 2) if side <= 96 else (2,)
        shares = (1.0,) if side < 24 else (1.0, 0.875, 0.75)
        sizes = dict.fromkeys(scaled(self.size, share, 4, 8) for share in shares)
        if self.size not in sizes:  # a task that is no multiple of 4 is taken as it is
            sizes = {self.size: None} | {size: None for size in sizes if size < self.size}
        self.resolutions: tuple[int | Size, ...] = tuple(compact(size) for size in sizes)

    def sample(self, rng: Random) -> MobileArchitecture:
        resolution, stem_stride = rng.choice(self.resolutions), rng.choice(self.stem_strides)
        strides = self._sample_strides(resolution, stem_stride, rng)
        width = 8 * 2 ** rng.uniform(0, 3)
        growth = rng.uniform(1.0, 2.0)
        deepest = rng.randint(1, MAX_DEPTH)
        stem_width = to_width(width * rng.uniform(0.6, 1.2))
        stages = []
        for stride in strides:
            kind = rng.choice(KINDS)
            stage = Stage(
                kind=kind,
                depth=rng.randint(1, deepest),
                width=to_width(width),
                kernel=_sample_kernel(kind, rng),
                expansion=rng.choice(EXPANSIONS[kind]),
                squeeze=rng.random() < 0.25,
                stride=stride,
            )
            stages.append(stage)
            width = min(MAX_WIDTH, width * max(1.0, rng.uniform(0.8, 1.2) * growth))
        return self._architecture(resolution, stem_width, stem_stride, stages, _sample_head(stages[-1].width, rng))

    def mutate(self, architecture: MobileArchitecture, rng: Random) -> MobileArchitecture:
        """One to three changes: of a stage, the stem, the head, the resolution, or where the image is halved."""
        changed = architecture
        while changed == architecture:
            for _ in range(rng.choice((1, 1, 2, 3))):
                changed = self._change(changed, rng)
        return changed

    def _change(self, architecture: MobileArchitecture, rng: Random) -> MobileArchitecture:
        part = rng.choices(("stage", "stem", "head", "resolution", "strides"), (12, 1, 1, 1, 1))[0]
        stages = list(architecture.stages)
        fields = architecture.model_dump(include={"resolution", "stem_width", "stem_stride", "head_width"})
        if part == "stage":
            index = rng.randrange(len(stages))
            stages[index] = _change_stage(stages[index], rng)
        elif part == "stem":
            fields["stem_width"] = _near(architecture.stem_width, rng)
        elif part == "head":
            fields["head_width"] = _sample_head(stages[-1].width, rng)
        else:
            if part == "resolution":
                fields["resolution"] = rng.choice(self.resolutions)
            fields["stem_stride"] = rng.choice(self.stem_strides)
            stages = self._restride(fields["resolution"], fields["stem_stride"], stages, rng)
        return self._architecture(stages=stages, **fields)

    def crossover(self, first: MobileArchitecture, second: MobileArchitecture, rng: Random) -> MobileArchitecture:
        """Each stage, the stem, the head from either; resolution and halvings together from one of them."""
        frame = rng.choice((first, second))
        stages = [
            rng.choice(pair).model_copy(update={"stride": ours.stride})
            for pair, ours in zip(zip(first.stages, second.stages, strict=True), frame.stages, strict=True)
        ]
        return self._architecture(
            resolution=frame.resolution,
            stem_width=rng.choice((first, second)).stem_width,
            stem_stride=frame.stem_stride,
            stages=stages,
            head_width=rng.choice((first, second)).head_width,
        )

    def resolution(self, architecture: MobileArchitecture) -> Size:
        return sides(architecture.resolution)

    def head_width(self, architecture: MobileArchitecture) -> int:
        return architecture.head_width

    def stem(self, architecture: MobileArchitecture) -> tuple[tuple[str, Graph], ...]:
        shape = (architecture.channels, *self.resolution(architecture))
        named = [("stem", _stem_graph(shape, architecture.stem_width, architecture.stem_stride))]
        shape = named[0][1].output_shape
        for number, stage in enumerate(architecture.stages, 1):
            for index in range(stage.depth):
                stride = stage.stride if index == 0 else 1
                graph = block_graph(
                    shape, stage.width, stage.kind, stage.kernel, stage.expansion, stage.squeeze, stride
                )
                named.append((f"stage{number}.{index}", graph))
                shape = graph.output_shape
        return tuple(named)

    def parts(self, architecture: MobileArchitecture) -> dict[str, nn.Module]:
        return mobile_parts(
            architecture.channels, architecture.stem_width, architecture.stem_stride, architecture.stages
        )

    def read(self, data: dict[str, Any]) -> MobileArchitecture:
        architecture = MobileArchitecture.parse(data, "architecture")
        for name, given, allowed in self._choices(architecture):
            if given not in allowed:
                raise BadInput(f"architecture: {name} is {given}; for this task it is {' or '.join(map(str, allowed))}")
        return architecture

    def _choices(self, architecture: MobileArchitecture) -> Iterator[tuple[str, Any, Sequence[Any]]]:
        """What the task decides: name, value here, values there are. Crossing two networks relies on it."""
        yield "channels", architecture.channels, (self.channels,)
        yield "outputs", architecture.outputs, (self.head.outputs,)
        yield "resolution", architecture.resolution, self.resolutions
        yield "stem_stride", architecture.stem_stride, self.stem_strides
        yield "the number of stages", len(architecture.stages), (self.num_stages,)
        halved = sum(stage.stride == 2 for stage in architecture.stages)
        fitting = self._halvings(architecture.resolution, architecture.stem_stride)
        yield "the number of stages with stride 2", halved, fitting

    def smallest(self) -> MobileArchitecture:
        resolution, stem_stride = self.resolutions[-1], max(self.stem_strides)
        halvings = max(self._halvings(resolution, stem_stride))
        stages = [
            Stage(kind="separable", depth=1, width=8, kernel=3, expansion=1, squeeze=False, stride=1 + (i < halvings))
            for i in range(self.num_stages)
        ]
        return self._architecture(resolution, 8, stem_stride, stages, 0)

    def classics(self) -> list[Architecture]:
        """Plain networks (3x3 convolutions, twice as wide wherever the map is halved), residual ones, and inverted
        residual ones, at the task's own size, from very narrow to very wide."""
        made = [self._classic(family, width) for family in CLASSICS for width in CLASSIC_WIDTHS]
        return list({one.key(): one for one in made}.values())  # two widths may round to one

    def _classic(self, family: str, width: float) -> MobileArchitecture:
        kind, expansion, first, depths = CLASSICS[family]
        resolution, stem_stride = self.resolutions[0], max(self.stem_strides)
        halvings = max(self._halvings(resolution, stem_stride))
        stages = [
            Stage(
                kind=kind,
                depth=depths[min(index, len(depths) - 1)],
                width=to_width(width * first * 2 ** min(index, max(0, halvings - 1))),
                kernel=3,
                expansion=expansion,
                squeeze=False,
                stride=2 if index < halvings else 1,
            )
            for index in range(self.num_stages)
        ]
        head = min(MAX_HEAD, 4 * stages[-1].width) if kind == "inverted" else 0
        return self._architecture(resolution, to_width(width * 24), stem_stride, stages, head)

    def describe(self, architecture: MobileArchitecture) -> str:
        head = f", head {architecture.head_width}" if architecture.head_width else ""
        size = size_text(self.resolution(architecture))
        lines = [f"{size}, stem {architecture.stem_width}/{architecture.stem_stride}{head}"]
        for stage in architecture.stages:
            extras = ("" if stage.expansion == 1 else f" e{stage.expansion}") + (" se" if stage.squeeze else "")
            halved = " /2" if stage.stride == 2 else ""
            lines.append(f"{stage.depth} x {stage.kind} {stage.width} k{stage.kernel}{extras}{halved}")
        return "\n".join(lines)

    def _architecture(
        self, resolution: int | Size, stem_width: int, stem_stride: Literal[1, 2], stages: list[Stage], head_width: int
    ) -> MobileArchitecture:
        return MobileArchitecture(
            channels=self.channels,
            outputs=self.head.outputs,
            resolution=resolution,
            stem_width=stem_width,
            stem_stride=stem_stride,
            stages=tuple(stages),
            head_width=head_width,
        )

    def _halvings(self, resolution: int | Size, stem_stride: int) -> list[int]:
        """How many stages may halve the map, by what is left at the end: its longer side decides, and its shorter one
        keeps two pixels, however long the other is."""
        low, high = sorted(math.ceil(side / stem_stride) for side in sides(resolution))
        counts = [count for count in range(self.num_stages + 1) if low == high or math.ceil(low / 2**count) >= SHORTEST]
        return [count for count in counts if SMALLEST_MAP <= math.ceil(high / 2**count) <= LARGEST_MAP] or counts[-1:]

    def _sample_strides(self, resolution: int | Size, stem_stride: int, rng: Random) -> list[int]:
        halvings = rng.choice(self._halvings(resolution, stem_stride))
        places = set(rng.sample(range(self.num_stages), halvings))
        return [2 if index in places else 1 for index in range(self.num_stages)]

    def _restride(self, resolution: int | Size, stem_stride: int, stages: list[Stage], rng: Random) -> list[Stage]:
        strides = self._sample_strides(resolution, stem_stride, rng)
        return [stage.model_copy(update={"stride": stride}) for stage, stride in zip(stages, strides, strict=True)]


def to_width(width: float) -> int:
    """The nearest multiple of 8 in range."""
    return min(MAX_WIDTH, max(8, round(width / 8) * 8))


def _near(width: int, rng: Random) -> int:
    """Another width, a step or a factor of up to 1.5 away."""
    moved = to_width(width * 1.5 ** rng.uniform(-1, 1))
    return moved if moved != width else to_width(width + rng.choice((-8, 8)))


def _sample_kernel(kind: Kind, rng: Random) -> int:
    """Dense 5x5 and 7x7 convolutions are dear, so they are rarer where the kernel is dense."""
    return rng.choices(KERNELS, (2, 1, 1) if kind in ("inverted", "separable") else (8, 1, 0.5))[0]


def _sample_head(width: int, rng: Random) -> int:
    return min(MAX_HEAD, width * rng.choice(HEAD_FACTORS))


def _change_stage(stage: Stage, rng: Random) -> Stage:
    """One choice of a stage drawn again; a new kind brings an expansion that it has."""
    gene = rng.choice(("kind", "depth", "width", "width", "kernel", "expansion", "squeeze"))
    if gene == "depth":
        return stage.model_copy(update={"depth": min(MAX_DEPTH, max(1, stage.depth + rng.choice((-1, 1))))})
    if gene == "width":
        return stage.model_copy(update={"width": _near(stage.width, rng)})
    if gene == "kernel":
        return stage.model_copy(update={"kernel": _sample_kernel(stage.kind, rng)})
    if gene == "squeeze":
        return stage.model_copy(update={"squeeze": not stage.squeeze})
    kind = rng.choice(KINDS) if gene == "kind" else stage.kind
    return stage.model_copy(update={"kind": kind, "expansion": rng.choice(EXPANSIONS[kind])})


@functools.lru_cache(maxsize=4096)
def _stem_graph(shape: tuple[int, ...], width: int, stride: int) -> Graph:
    builder = GraphBuilder(shape)
    builder.relu(builder.conv(0, width, 3, stride))
    return builder.graph()


@functools.lru_cache(maxsize=65_536)
def block_graph(
    shape: tuple[int, ...], width: int, kind: Kind, kernel: int, expansion: int, squeeze: bool, stride: int
) -> Graph:
    """What `model.blocks.Block` computes, operator by operator, batch norms folded."""
    builder = GraphBuilder(shape)
    source = shape[0]
    inner = source * expansion
    if kind == "inverted":
        x = builder.relu(builder.conv(0, inner)) if expansion > 1 else 0
        x = builder.relu(builder.conv(x, inner, kernel, stride, groups=inner))
    elif kind == "fused":
        x = builder.relu(builder.conv(0, inner, kernel, stride)) if expansion > 1 else 0
    elif kind == "separable":
        x = builder.relu(builder.conv(0, source, kernel, stride, groups=source))
    else:
        x = builder.relu(builder.conv(0, width, kernel, stride))
    x = _gated(builder, x) if squeeze else x
    if kind == "basic":
        x = builder.conv(x, width, kernel)
    elif kind == "fused" and expansion == 1:
        x = builder.conv(x, width, kernel, stride)
    else:
        x = builder.conv(x, width)
    if source == width and stride == 1:
        x = builder.add(0, x)
    if ends_in_relu(kind, expansion):
        builder.relu(x)
    return builder.graph()


def _gated(builder: GraphBuilder, x: int) -> int:
    width = builder.shapes[x][0]
    gate = builder.relu(builder.conv(builder.global_pool(x), squeezed(width)))
    return builder.mul(x, builder.hardsigmoid(builder.conv(gate, width)))
