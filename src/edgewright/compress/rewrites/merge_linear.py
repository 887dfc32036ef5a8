r"""Merge linear convolutions that follow each other into one, exactly, borders and residual included.

Two places are looked at. A *module* whose operators are convolutions, batch norms and additions only, with one input
and one output, and perhaps an activation as its last step, becomes one convolution (and that activation): an inverted
residual block without its inner activations, a linear block of SESR, the branches of a RepVGG block. A *chain* of
convolutions and norms that only read each other becomes its first layer; where to cut it is chosen for the fewest
multiply-adds. The algebra, and when borders are exact, is in `affine.py`.

With batch norm worked in, pw1 (1x1: W_1, b_1), dw (k x k: D, b_2), pw2 (1x1: W_3, b_3) become

    K[o, i, u, v] = sum_m W_3[o, m] D[m, u, v] W_1[m, i]           b = W_3 b_2 + b_3
    c[o, u, v]    = sum_m W_3[o, m] D[m, u, v] b_1[m]              (+ 1 to K[c, c, centre] for a residual)

The customary merge adds sum_uv c[o, u, v] to b instead. That is right inside the image and wrong by far at its border,
where the depthwise convolution pads with zeros and not with b_1; here c sees the border as it is.
Where no single convolution is exact with zero padding (a padded k x k after a padded k x k) it is left alone by name;
`PadFirst` moves the padding to the first convolution, which alters the borders, and after training it merges.

A merge that would add multiply-adds (beyond `most_macs` times what there is) is declined: kernels grow, and a 1x1 that
narrows before a 1x1 that widens is cheaper in two steps.

Differs from the papers: DepthShrinker's own code does not merge weights but puts a new convolution there to time it,
without residual and border; SESR merges k x k then 1x1 only.
Source: Fu et al., "DepthShrinker", ICML 2022, arXiv:2206.00843, section 3; Bhardwaj et al., "SESR: Single-Image Super
Resolution using collapsible linear blocks", MLSys 2022, arXiv:2103.09404. Checked against: the layers one after the
other (tests/compress/test_merge_linear.py); the customary merge fails the same test.
"""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from edgewright.compress.affine import num_operators
from edgewright.compress.base import Declined, Found, Rewrite, replace, saved_by
from edgewright.compress.region import PASSING, Part, macs_of, merged_module, padding_of, parts_of
from edgewright.compress.wiring import POINTWISE, Step, Wiring

FUNCTIONS = {"relu": nn.ReLU, "relu_": nn.ReLU, "silu": nn.SiLU, "hardswish": nn.Hardswish}


class Merge(Rewrite):
    """parts: what is merged, in running order.   at: the module that becomes the convolution; the other `layers` become
    identities.   activation: a module (by name) or function that stays behind it, "" for none."""

    kind: Literal["merge_linear"] = "merge_linear"
    parts: tuple[Part, ...]
    at: str
    activation: str = ""

    def carry_out(self, model: nn.Module) -> None:
        merged = merged_module(model, self.parts)
        if isinstance(merged, str):
            raise RuntimeError(merged)
        if self.activation:
            last = FUNCTIONS[self.activation]() if self.activation in FUNCTIONS else None
            merged = nn.Sequential(merged, last or model.get_submodule(self.activation))
        for name in self.layers:
            replace(model, name, merged if name == self.at else nn.Identity())


class PadFirst(Rewrite):
    """The padding of a chain of convolutions, moved to the first: outputs keep their size, borders change.

    layers: the convolutions in order. Afterwards the chain is one zero-padded convolution exactly, so that what is
    trained is what ships. Padding (sum of s_1 ... s_(l-1) p_l) goes to the first, 0 to the others.
    """

    kind: Literal["pad_first"] = "pad_first"
    tolerance: float | None = None

    def carry_out(self, model: nn.Module) -> None:
        convs = [module for name in self.layers if isinstance(module := model.get_submodule(name), nn.Conv2d)]
        paddings = [padding_of(conv) for conv in convs]
        if len(convs) < len(self.layers) or None in paddings:
            raise TypeError(f"not all of {', '.join(self.layers)} are convolutions that pad with zeros")
        total, step = [0, 0], [1, 1]
        for conv, padding in zip(convs, paddings, strict=True):
            for axis in (0, 1):
                total[axis] += step[axis] * (padding or (0, 0))[axis]
                step[axis] *= conv.stride[axis]
            conv.padding = (0, 0)
        convs[0].padding = (total[0], total[1])


def find(model: nn.Module, wiring: Wiring, *, most_macs: float = 1.0, only: tuple[str, ...] | None = None) -> Found:
    """The merges of a network that pay.

    most_macs: a merged convolution has at most so many times the multiply-adds of what it replaces.   only: modules to
    look inside (themselves included), all by default.
    """
    search = _Search(model, wiring, most_macs, only)
    merges = search.modules("")
    taken = {name for merge in merges for name, _ in model.get_submodule(merge.at).named_modules(prefix=merge.at)}
    merges += search.chains(taken)
    order = {name: number for number, name in enumerate(step.own for step in wiring.steps.values())}
    merges.sort(key=lambda merge: order.get(merge.parts[0].layer, 0))
    claimed = {part.layer for merge in merges for part in merge.parts}
    declined = tuple(one for one in search.declined.values() if not set(one.layers) & claimed)
    return Found(rewrites=tuple(merges), declined=declined)


def pad_first(model: nn.Module, wiring: Wiring, *, only: tuple[str, ...] | None = None) -> Found:
    """Chains of convolutions that would merge but for their borders, with the padding to be moved."""
    search = _Search(model, wiring, float("inf"), only)
    found: list[Rewrite] = []
    for chain in search.every_chain(set()):
        convs = [step.own for step in chain if step.operator == "conv2d"]
        paddings = [padding_of(model.get_submodule(name)) for name in convs]
        if len(convs) > 1 and all(p is not None for p in paddings) and any(any(p or ()) for p in paddings[1:]):
            found.append(PadFirst(layers=tuple(convs), note="borders change"))
    return Found(rewrites=tuple(found))


class _Search:
    def __init__(self, model: nn.Module, wiring: Wiring, most_macs: float, only: tuple[str, ...] | None) -> None:
        self.model, self.wiring, self.most_macs, self.only = model, wiring, most_macs, only
        self.declined: dict[tuple[str, ...], Declined] = {}

    def decline(self, layers: tuple[str, ...], why: str) -> None:
        self.declined[layers] = Declined(kind="merge_linear", layers=layers, why=why)

    def wanted(self, path: str) -> bool:
        return self.only is None or any(path == name or path.startswith(f"{name}.") for name in self.only)

    def modules(self, path: str) -> list[Merge]:
        """The best merges inside a module, as a whole or in its children, whichever saves more multiply-adds."""
        parent = self.model.get_submodule(path)
        children = [f"{path}.{name}" if path else name for name, _ in parent.named_children()]
        inner = [merge for child in children for merge in self.modules(child)]
        own = self.whole(path) if path and self.wanted(path) and children else None
        if isinstance(own, Merge) and (not inner or own.saves.macs >= sum(merge.saves.macs for merge in inner)):
            return [own]
        if isinstance(own, str) and not inner and not any(path in name for names in self.declined for name in names):
            self.decline((path,), own)
        return inner

    def whole(self, path: str) -> Merge | str | None:
        """The merge of all of a module; why not, for one map of one input; None for anything else."""
        steps = self.wiring.by_module.get(path, [])
        sources, results = self.wiring.edges(path)
        if len(steps) < 2 or len(sources) != 1 or len(results) != 1:
            return None
        last, activation = steps[-1], ""
        if last.operator in POINTWISE:
            activation = last.own if last.own != path else last.operator
            if {last.name} != results or len(last.inputs) != 1 or (last.own == path and activation not in FUNCTIONS):
                return None
            steps = steps[:-1]
        if any(step.owner is not None and not step.owner.startswith(f"{path}.") for step in steps):
            return None
        parts = parts_of(self.model, self.wiring, steps, next(iter(sources)))
        if parts is None or sum(part.layer == "" for part in parts) + _convs(steps) < 2:
            return None
        why = self.wiring.once(path)
        return why or self.priced((path,), parts, steps, [self.model.get_submodule(path)], activation)

    def priced(
        self, layers: tuple[str, ...], parts: tuple[Part, ...], steps: list[Step], old: list[nn.Module], activation: str
    ) -> Merge | str:
        """The merge with what it saves; or why it cannot or should not be."""
        merged = merged_module(self.model, parts)
        if isinstance(merged, str):
            return merged
        conv = next(module for module in merged.modules() if isinstance(module, nn.Conv2d))
        now, then = sum(step.macs for step in steps), macs_of(merged, parts)
        if then > self.most_macs * now:
            return f"as one convolution it would have {then:,} MACs instead of {now:,}"
        return Merge(
            layers=layers,
            parts=parts,
            at=layers[0],
            activation=activation,
            saves=saved_by(old, [merged], now - then, len(steps) - num_operators(merged)),
            note=f"{sum(1 for part in parts if part.layer)} layers into one {'x'.join(map(str, conv.kernel_size))}",
        )

    def every_chain(self, taken: set[str]) -> Iterator[list[Step]]:
        """Longest runs of convolutions and norms of which each alone reads the one before."""
        steps = [step for step in self.wiring.steps.values() if self._is_layer(step) and step.own not in taken]
        names = {step.name for step in steps}
        follows: dict[str, Step] = {}
        for step in steps:
            source = self._behind(step.inputs[0])
            if source in names and self.alone(self.wiring.steps[source], step):
                follows[source] = step
        later = {step.name for step in follows.values()}
        for step in steps:
            if step.name not in later:
                chain = [step]
                while chain[-1].name in follows:
                    chain.append(follows[chain[-1].name])
                if _convs(chain) > 1:
                    yield chain

    def chains(self, taken: set[str]) -> list[Merge]:
        found: list[Merge] = []
        for chain in self.every_chain(taken):
            merges = self.cut(chain)
            found += merges
            layers = tuple(step.own for step in chain)
            inside = [names for names in self.declined if len(names) == 1 and layers[0].startswith(f"{names[0]}.")]
            if not merges and not inside:  # a module around them is named already
                self.decline(layers, str(self.run(chain)))
        return found

    def cut(self, chain: list[Step]) -> list[Merge]:
        """The merges of a chain with the fewest multiply-adds in all, then the fewest layers."""
        best: list[tuple[tuple[int, int], list[Merge]]] = [((0, 0), [])]
        for end in range(1, len(chain) + 1):
            (macs, count), merges = best[end - 1]
            options = [((macs + chain[end - 1].macs, count + 1), merges)]
            for start in range(end - 1):
                merge = self.run(chain[start:end])
                if isinstance(merge, Merge):
                    (macs, count), merges = best[start]
                    now = sum(step.macs for step in chain[start:end])
                    options.append(((macs + now - merge.saves.macs, count + 1), [*merges, merge]))
            best.append(min(options, key=lambda option: option[0]))
        return best[-1][1]

    def run(self, chain: list[Step]) -> Merge | str:
        """A part of a chain as one."""
        names = [step.name for step in self.wiring.steps.values()]
        first, last = names.index(chain[0].name), names.index(chain[-1].name)
        inside = {step.name for step in chain}
        steps = [self.wiring.steps[name] for name in names[first : last + 1]]
        steps = [step for step in steps if step.name in inside or step.operator in PASSING]
        steps = [step for step in steps if step.name in inside or self._behind(step.name) in inside]
        parts = parts_of(self.model, self.wiring, steps, chain[0].inputs[0])
        if parts is None or not _convs(chain):
            return "there is no convolution in it"
        layers = tuple(step.own for step in chain)
        return self.priced(layers, parts, steps, [self.model.get_submodule(name) for name in layers], "")

    def alone(self, source: Step, step: Step) -> bool:
        """Whether `step` alone reads `source` and both stand for themselves; if not, why is noted."""
        pair = (source.own, step.own)
        why = self.wiring.once(source.own) or self.wiring.once(step.own)
        at = step.inputs[0]
        while why is None:
            readers = self.wiring.steps[at].readers
            if len(readers) > 1:
                why = f"what {source.own} gives is read by {len(readers)} others: {', '.join(readers)}"
            if at == source.name:
                break
            at = self.wiring.steps[at].inputs[0]  # a dropout between them
        if why:
            self.decline(pair, why)
        return why is None

    def _behind(self, name: str) -> str:
        while name in self.wiring.steps and self.wiring.steps[name].operator in PASSING:
            name = self.wiring.steps[name].inputs[0]
        return name

    def _is_layer(self, step: Step) -> bool:
        module = self.model.get_submodule(step.own)
        plain = type(module) is nn.Conv2d or isinstance(module, nn.BatchNorm2d)
        alone = step.own == step.owner and len(self.wiring.by_module[step.own]) == 1
        return plain and alone and step.operator in ("conv2d", "batch_norm") and self.wanted(step.own)


def _convs(steps: list[Step]) -> int:
    return sum(step.operator == "conv2d" for step in steps)
