"""The space `shrunk`: a network that has learned, made to fit.

A start is a chain of parts (`chain`). What may be chosen: the size of the maps that it takes, where it ends, which
residual parts are left out, and how wide each stage is, in eighths: the stream that the parts of a stage hand on, and
what each part holds inside. Channels go by groups that depend on each other (`compress.prune.groups`), those first that
the next layers get least from (`importances.received`). What stays has the start's weights; the head is the task's, and
new.

An architecture is these choices and the digest of the start's weights: plain data, costed on the meta device without
a weight being touched.
"""

import copy
import functools
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from edgewright.compress.prune.groups import Dependencies, Group, dependencies
from edgewright.compress.prune.importance import cross_entropy
from edgewright.compress.prune.importances.received import received
from edgewright.compress.rewrites.prune_channels import narrowed
from edgewright.compress.wiring import trace
from edgewright.core.errors import BadInput
from edgewright.core.tensors import Size, TensorSpec, compact, scaled, sides, size_text
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.head import Head
from edgewright.model.network import Network
from edgewright.space.base import Framed, Space
from edgewright.start.chain import Chain, chain
from edgewright.start.picture import picture
from edgewright.start.start import Opened, Rescale, with_channels

EIGHTHS = (8, 7, 6, 5, 4, 3, 2)
SHARES = (1.0, 0.875, 0.75, 0.667, 0.583, 0.5, 0.417)  # of the sides
SMALLEST = 32  # pixels of a shorter side below which a start that learned on photographs sees little
STEP = 8
RESCALE = "rescale"

Width = tuple[int, int]  # of a stage, in eighths: the stream between its parts, and inside them


class ShrunkArchitecture(Framed):
    """start: digest of its weights.   parts: how many are kept from the front.   dropped: of these, which are left out.
    widths: of each stage, in eighths (see `Width`)."""

    space: Literal["shrunk"] = "shrunk"
    start: str
    parts: int = Field(ge=1)
    dropped: tuple[int, ...] = ()
    widths: tuple[Width, ...]


class ShrunkSpace(Space):
    """`shrunk` for one task and one start.

    opened: the start; its weights may be fresh where only structure is asked for.   mean, std: of the task's
    normalisation, for the same white; where they are not the start's, its maps are scaled first.
    Errors: BadInput for several inputs, for a start that is no chain, and for what cannot be drawn.
    """

    name = "shrunk"
    learned = True
    source = "a start's own paper; channel groups after DepGraph (arXiv:2301.12900), blocks after IEEE TPAMI 41(12)"
    summary = "a network that has learned, cut, narrowed and made shallower; size of its maps"

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        head: Head,
        opened: Opened,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        super().__init__(inputs, head)
        if len(inputs) > 1:
            raise BadInput(f"a start takes one map, and this task has {' and '.join(one.name for one in inputs)}")
        self.start = opened.start
        self.opened = opened
        self.rescale = _rescale(opened.start, self.channels, tuple(mean), tuple(std))
        kept = [compact(scaled(self.size, share, STEP, SMALLEST)) for share in SHARES]
        kept = [size for size in dict.fromkeys(kept) if max(sides(size)) <= max(self.size)]
        self.resolutions: tuple[int | Size, ...] = tuple(kept) or (compact(self.size),)
        self.plan = self._surveyed()

    # ---- what the start is ----

    def _surveyed(self) -> "_Plan":
        with torch.device("meta"):
            bare = with_channels(self.opened.make(), self.channels)
        shape = (self.channels, *sides(self.resolutions[0]))
        links = chain(bare.to("meta"), shape)
        with torch.device("meta"):
            whole = _network(links, self.head)
        found = dependencies(whole, trace(whole, torch.zeros(1, *shape, device="meta")))
        return _Plan(links, whole, found, _stages(links), tuple(_places(found, links)))

    @functools.cached_property
    def _learned(self) -> Network:
        """All parts with the start's weights."""
        links = chain(with_channels(self.opened.network, self.channels), (self.channels, *sides(self.resolutions[0])))
        return _network(links, self.head)

    @functools.cached_property
    def _order(self) -> dict[str, list[int]]:
        """Of each group its units, those first of which the next layers get most."""
        groups = self.plan.found.groups
        scores = received(self._learned, groups, (), cross_entropy)
        return {
            group.name: torch.argsort(-score, stable=True).tolist() for group, score in zip(groups, scores, strict=True)
        }

    # ---- the law of spaces ----

    def whole(self) -> ShrunkArchitecture:
        """The start as it is, at the task's own size."""
        return self._architecture(self.resolutions[0], len(self.plan.links.parts), (), self._full)

    @property
    def _full(self) -> tuple[Width, ...]:
        return ((8, 8),) * (max(self.plan.stages) + 1)

    def smallest(self) -> ShrunkArchitecture:
        ends = self.ends()
        droppable = tuple(index for index in self._droppable(ends[-1]))
        return self._architecture(self.resolutions[-1], ends[-1], droppable, ((2, 2),) * len(self._full))

    def sample(self, rng: Random) -> ShrunkArchitecture:
        """Small ones and large ones, each made smaller in some of the four ways and not in others."""
        resolution = rng.choice(self.resolutions)
        end = rng.choice(self.ends()) if rng.random() < 0.3 else self.ends()[0]
        rate = rng.choice((0.0, 0.0, 0.2, 0.5))
        dropped = tuple(index for index in self._droppable(end) if rng.random() < rate)
        outer, inner = (rng.choice(EIGHTHS) if rng.random() < 0.5 else 8 for _ in range(2))
        widths = tuple((_near(outer, rng), _near(inner, rng)) for _ in self._full)
        return self._architecture(resolution, end, dropped, widths)

    def mutate(self, architecture: ShrunkArchitecture, rng: Random) -> ShrunkArchitecture:
        changed = architecture
        while changed == architecture:
            for _ in range(rng.choice((1, 1, 2))):
                changed = self._change(changed, rng)
        return changed

    def _change(self, architecture: ShrunkArchitecture, rng: Random) -> ShrunkArchitecture:
        end, dropped, widths = architecture.parts, set(architecture.dropped), list(architecture.widths)
        resolution: int | Size = architecture.resolution
        what = rng.choices(("resolution", "end", "drop", "width"), (3, 1, 3, 4))[0]
        droppable = self._droppable(end)
        if what == "resolution":
            resolution = rng.choice(self.resolutions)
        elif what == "end":
            end = rng.choice(self.ends())
        elif what == "drop" and droppable:
            dropped ^= {rng.choice(droppable)}
        else:
            stage = rng.randrange(len(widths))
            side, width = rng.randrange(2), list(widths[stage])
            width[side] = min(8, max(2, width[side] + rng.choice((-2, -1, 1, 2))))
            widths[stage] = (width[0], width[1])
        kept = tuple(sorted(dropped & set(self._droppable(end))))
        return self._architecture(resolution, end, kept, tuple(widths))

    def crossover(self, first: Any, second: Any, rng: Random) -> ShrunkArchitecture:
        frame = rng.choice((first, second))
        widths = tuple(rng.choice(pair) for pair in zip(first.widths, second.widths, strict=True))
        either = set(first.dropped) | set(second.dropped)
        both = set(first.dropped) & set(second.dropped)
        dropped = both | {index for index in sorted(either - both) if rng.random() < 0.5}
        kept = tuple(sorted(dropped & set(self._droppable(frame.parts))))
        return self._architecture(rng.choice((first, second)).resolution, frame.parts, kept, widths)

    def ends(self) -> tuple[int, ...]:
        """How many parts may be kept: all, or up to the end of a stage in the later half; the most first."""
        stages, count = self.plan.stages, len(self.plan.links.parts)
        found = [
            index + 1
            for index in range(count)
            if index + 1 == count or (stages[index] != stages[index + 1] and index + 1 > count // 2)
        ]
        return tuple(reversed(found))

    def _droppable(self, end: int) -> list[int]:
        return [index for index, part in enumerate(self.plan.links.parts[:end]) if part.residual]

    def resolution(self, architecture: ShrunkArchitecture) -> Size:
        return sides(architecture.resolution)

    def stem(self, architecture: ShrunkArchitecture) -> tuple[tuple[str, Graph], ...]:
        return self._drawn(architecture)  # pyright: ignore[reportArgumentType] (frozen models are hashable)

    @functools.lru_cache(maxsize=4096)  # noqa: B019 (a space lives as long as its process)
    def _drawn(self, architecture: ShrunkArchitecture) -> tuple[tuple[str, Graph], ...]:
        widths: dict[str, dict[str, int]] = {}
        for group, count in self._counts(architecture):
            for name, full in self.plan.makes[group.name]:
                part, _, layer = name.partition(".")
                own = widths.setdefault(part, {})
                own[layer] = own.get(layer, full) - (group.units - count) * group.per_unit
        shape = (self.channels, *self.resolution(architecture))
        named = [(RESCALE, _scaling(shape))] if self.rescale is not None else []
        for name in self._kept(architecture):
            graph = self._part(name, shape, tuple(sorted(widths.get(name, {}).items())))
            named.append((name, graph))
            shape = graph.output_shape
        return tuple(named)

    @functools.lru_cache(maxsize=4096)  # noqa: B019
    def _part(self, name: str, shape: tuple[int, ...], widths: tuple[tuple[str, int], ...]) -> Graph:
        return picture(self.plan.whole.get_submodule(name), shape, dict(widths))  # pyright: ignore[reportArgumentType]

    def _counts(self, architecture: ShrunkArchitecture) -> Iterator[tuple[Group, int]]:
        """The groups that are narrower, and how many units each has."""
        for group, (stage, inside) in zip(self.plan.found.groups, self.plan.places, strict=True):
            count = _units(group, architecture.widths[stage][inside])
            if count < group.units:
                yield group, count

    def parts(self, architecture: ShrunkArchitecture) -> dict[str, nn.Module]:
        network = self._narrowed(copy.deepcopy(self._learned), architecture)
        found: dict[str, nn.Module] = {} if self.rescale is None else {RESCALE: copy.deepcopy(self.rescale)}
        return found | {name: network.get_submodule(name) for name in self._kept(architecture)}

    def _kept(self, architecture: ShrunkArchitecture) -> list[str]:
        links = self.plan.links.parts[: architecture.parts]
        return [part.name for index, part in enumerate(links) if index not in architecture.dropped]

    def _narrowed(self, network: Network, architecture: ShrunkArchitecture) -> Network:
        """`network`, with only the largest units of its groups; changed in place."""
        keep = {group.name: self._order[group.name][:count] for group, count in self._counts(architecture)}
        with torch.no_grad():
            for rewrite in narrowed(network, self.plan.found, keep):
                rewrite.carry_out(network)
        return network

    def read(self, data: dict[str, Any]) -> ShrunkArchitecture:
        architecture = ShrunkArchitecture.parse(data, "architecture")
        for name, given, allowed in (
            ("channels", architecture.channels, (self.channels,)),
            ("outputs", architecture.outputs, (self.head.outputs,)),
            ("start", architecture.start, (self.start.digest,)),
            ("parts", architecture.parts, self.ends()),
            ("the number of widths", len(architecture.widths), (len(self._full),)),
        ):
            if given not in allowed:
                raise BadInput(
                    f"architecture: {name} is {given}; for this start it is {' or '.join(map(str, allowed))}"
                )
        if unknown := set(architecture.dropped) - set(self._droppable(architecture.parts)):
            raise BadInput(f"architecture: part {min(unknown)} of this start cannot be left out")
        return architecture

    def describe(self, architecture: ShrunkArchitecture) -> str:
        lines = [f"{self.start.source} at {size_text(self.resolution(architecture))}"]
        names = [part.name for part in self.plan.links.parts]
        if architecture.dropped:
            lines.append("without " + ", ".join(names[index] for index in architecture.dropped))
        if architecture.parts < len(names):
            lines.append(f"ends after {names[architecture.parts - 1]}")
        if architecture.widths != self._full:
            lines.append("widths in eighths " + ", ".join(f"{outer}/{inner}" for outer, inner in architecture.widths))
        return "\n".join(lines)

    def kept(self, architecture: ShrunkArchitecture) -> dict[str, Any]:
        """What of the start is still there, for result.json and the report: each part with its share of channels."""
        stages = self.plan.stages
        told = {}
        for index, part in enumerate(self.plan.links.parts):
            gone = index >= architecture.parts or index in architecture.dropped
            outer, inner = architecture.widths[stages[index]]
            told[part.name] = None if gone else {"stream": outer / 8, "inside": inner / 8}
        return {"resolution": architecture.resolution, "parts": told}

    def _architecture(
        self, resolution: int | Size, parts: int, dropped: tuple[int, ...], widths: tuple[Width, ...]
    ) -> ShrunkArchitecture:
        return ShrunkArchitecture(
            channels=self.channels,
            outputs=self.head.outputs,
            resolution=resolution,
            start=self.start.digest,
            parts=parts,
            dropped=dropped,
            widths=widths,
        )


class _Plan:
    """What a start is made of, on the meta device. stages: of each part.   places: of each group its stage, and whether
    it lies inside one part.   makes: of each group the layers that make its channels, and how many each makes."""

    def __init__(
        self,
        links: Chain,
        whole: Network,
        found: Dependencies,
        stages: tuple[int, ...],
        places: tuple[tuple[int, bool], ...],
    ) -> None:
        self.links, self.whole, self.found, self.stages, self.places = links, whole, found, stages, places
        shapes = {name: tensor.shape for name, tensor in (*whole.named_parameters(), *whole.named_buffers())}
        self.makes: dict[str, list[tuple[str, int]]] = {
            group.name: [
                (member.owner, shapes[member.tensor][member.dim])
                for member in group.members
                if member.role == "makes" and member.tensor.endswith(".weight")
            ]
            for group in found.groups
        }


def _network(links: Chain, head: Head) -> Network:
    """All parts and a head, as one network whose modules are called after the parts."""
    modules = {part.name: links.module(index) for index, part in enumerate(links.parts)}
    shapes = [part.shape for part in links.parts]
    sizes = [shape[1:] for shape in shapes]
    levels = [index for index in range(len(shapes)) if index + 1 == len(shapes) or sizes[index] != sizes[index + 1]]
    read = [levels[index] for index in head.reads([shapes[index] for index in levels])]
    return Network(
        modules, head.build([shapes[index][0] for index in read], 0), [links.parts[index].name for index in read]
    )


def _stages(links: Chain) -> tuple[int, ...]:
    """The stage of each part: a new one wherever the map gets smaller."""
    stages, last = [], None
    for part in links.parts:
        size = part.shape[1:]
        stages.append(0 if last is None else stages[-1] + (size != last))
        last = size
    return tuple(stages)


def _places(found: Dependencies, links: Chain) -> Iterator[tuple[int, bool]]:
    names = {part.name: index for index, part in enumerate(links.parts)}
    stages = _stages(links)
    for group in found.groups:
        touched = [member.tensor.split(".")[0] for member in group.members]
        makers = [member.owner.split(".")[0] for member in group.members if member.role == "makes"]
        yield stages[names.get(makers[0], 0)], len(set(touched)) == 1


def _units(group: Group, eighths: int) -> int:
    """How many of a group's units stay: channels in steps of eight, heads one by one."""
    step = 1 if group.heads else STEP
    return min(group.units, max(step, round(group.units * eighths / 8 / step) * step))


def _near(eighths: int, rng: Random) -> int:
    return min(8, max(2, eighths + rng.choice((-1, 0, 0, 1)))) if eighths < 8 else 8


def _rescale(start: Any, channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Rescale | None:
    """From the task's normalisation to the start's: x (std / own std) + (mean - own mean) / own std."""
    if not mean:
        return None
    own_mean, own_std, mean_, std_ = (_spread(values, channels) for values in (start.mean, start.std, mean, std))
    factor, shift = std_ / own_std, (mean_ - own_mean) / own_std
    if torch.allclose(factor, torch.ones_like(factor), atol=1e-3) and shift.abs().max() < 1e-3:
        return None
    return Rescale(factor, shift)


def _spread(values: Sequence[float], channels: int) -> torch.Tensor:
    found = torch.tensor(list(values))
    return found if len(found) == channels else found.mean().repeat(channels)


def _scaling(shape: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(shape)
    builder.norm(0)
    return builder.graph()
