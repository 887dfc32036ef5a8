"""Which merges pay where the network must run: every block measured as it is and merged, and only sure gains kept.

Fewer multiply-adds are not fewer milliseconds: a merged convolution is dense where the block was depthwise. So each
block is taken out of the network with the shape it reads, and timed beside what it would become, in turns. What a
runtime does at the borders of a block (changing layouts) is then counted on both sides.

What measures is the caller's: `export.blocks.measure_blocks` on a device.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgewright.compress.base import Declined, Plan, Rewrite, Saving, Totals, rebuilt
from edgewright.compress.planner import Method, look
from edgewright.compress.rewrites import depthshrinker, fold_batch_norm, merge_linear
from edgewright.compress.rewrites.depthshrinker import Decision, Linearise
from edgewright.compress.rewrites.merge_linear import Merge
from edgewright.compress.wiring import blank
from edgewright.core.data import Frozen
from edgewright.core.progress import progress
from edgewright.device.compare import Ratio, compared
from edgewright.device.measure import Latency

Shape = tuple[int, ...]
Measure = Callable[[Sequence[nn.Module], Shape], Sequence[Latency]]


class Timing(Frozen):
    """One rewrite. now_ms, then_ms: of its layers as they are, and as they become.   ratio: then over now."""

    layers: tuple[str, ...]
    now_ms: float
    then_ms: float
    ratio: Ratio

    @property
    def saved_ms(self) -> float:
        return self.now_ms - self.then_ms

    def text(self) -> str:
        """For people: "0.890 ms instead of 2.560 ms, 0.35 [0.33, 0.37] of the time"."""
        return f"{self.then_ms:.3f} ms instead of {self.now_ms:.3f} ms, {self.ratio.text()} of the time"


def worthwhile(model: nn.Module, plan: Plan, measure: Measure, *, merge: Method = merge_linear.find) -> Plan:
    """The plan without those merges, and linearisations for the sake of merging, that are not surely faster.

    A rewrite stays where the whole 95 % interval of its ratio of times (`device.compare.ratio`) lies below 1; its note
    says both times. The others are among the plan's `declined`, with theirs; so are activations that are dropped where
    nothing merges. Rewrites of other kinds stay as they are. What is left may save nothing: `base.must_save` says so.

    Args:
        plan: for `model`, as `planner.plan` made it.
        measure: modules and the shape that they read, batch 1, to the latency of each, measured in turns.
        merge: what will merge the linearised blocks afterwards.
    """
    timings = {timing.layers: timing for timing in timed(model, plan, measure, merge=merge)}
    slow = {layers for layers, timing in timings.items() if not timing.ratio.surely_faster}
    curved = [layers[-1] for layers in slow if layers in {one.layers for one in plan.rewrites if _linearises(one)}]
    kept: list[Rewrite] = []
    declined = list(plan.declined)
    for rewrite in plan.rewrites:
        timing = timings.get(rewrite.layers) if isinstance(rewrite, Merge | Linearise) else None
        if timing is not None and rewrite.layers in slow:
            why = f"merged it is not surely faster ({timing.text()})"
            declined.append(Declined(kind=rewrite.kind, layers=rewrite.layers, why=why))
        elif isinstance(rewrite, Linearise) and timing is None:
            declined.append(Declined(kind=rewrite.kind, layers=rewrite.layers, why="nothing merges there"))
        elif not (isinstance(rewrite, Merge) and any(_inside(rewrite.at, block) for block in curved)):
            notes = (rewrite.note, timing.text() if timing else "")
            kept.append(rewrite.model_copy(update={"note": "; ".join(filter(None, notes))}))
    saved = sum((rewrite.saves for rewrite in kept), Saving())
    after = Totals(**{name: getattr(plan.before, name) - getattr(saved, name) for name in Saving.model_fields})
    return plan.model_copy(update={"rewrites": tuple(kept), "declined": tuple(declined), "after": after})


def timed(model: nn.Module, plan: Plan, measure: Measure, *, merge: Method = merge_linear.find) -> tuple[Timing, ...]:
    """Each merge, and each linearisation as it will be once merged, beside its layers as they are.

    Blocks that are alike, shapes included, are measured once. Linearisations after which nothing merges are left out.
    """
    example = blank(model, (1, *plan.input_shape[1:]))
    stages = [
        (
            [rewrite for rewrite in plan.rewrites if _linearises(rewrite) and rewrite.promises()],
            _without(model, plan, Merge, Linearise),
            lambda: _merged(_without(model, plan, Merge), example, merge),
        ),
        (
            [rewrite for rewrite in plan.rewrites if isinstance(rewrite, Merge)],
            _without(model, plan, Merge),
            lambda: _without(model, plan),
        ),
    ]
    known: dict[tuple[str, str, Shape], Sequence[Latency]] = {}
    found: list[Timing] = []
    with progress("Measuring blocks", total=sum(len(rewrites) for rewrites, _, _ in stages)) as bar:
        for rewrites, now, then in stages:
            later = then() if rewrites else now
            shapes = _read(now, [_names(rewrite)[0] for rewrite in rewrites], example)
            for rewrite in rewrites:
                names = _names(rewrite)
                pair, shape = [_piece(now, names), _piece(later, names)], shapes[names[0]]
                alike = (repr(pair[0]), repr(pair[1]), shape)
                if alike not in known:
                    known[alike] = measure(pair, shape)
                found.append(_timing(rewrite, *known[alike]))
                bar.advance()
    return tuple(found)


def saved_ms(
    model: nn.Module, found: Sequence[Decision], example: Tensor, measure: Measure, *, merge: Method = merge_linear.find
) -> dict[str, float]:
    """What each decision would save in ms once merged, negative where it would cost: for `depthshrinker.searched`.

    found: of `depthshrinker.decisions`; those that cannot be merged, or merge nothing, are left out.
    """
    drop = [decision.block for decision in found if decision.mergeable]
    plan = look(model, example, [partial(depthshrinker.find, drop=drop)])
    return {timing.layers[-1]: timing.saved_ms for timing in timed(model, plan, measure, merge=merge)}


def _linearises(rewrite: Rewrite) -> bool:
    return isinstance(rewrite, Linearise)


def _inside(name: str, block: str) -> bool:
    return name == block or name.startswith(f"{block}.")


def _names(rewrite: Rewrite) -> tuple[str, ...]:
    """The modules that are run one after the other to have a rewrite's layers alone."""
    return rewrite.layers[-1:] if isinstance(rewrite, Linearise) else rewrite.layers


def _without(model: nn.Module, plan: Plan, *kinds: type[Rewrite]) -> nn.Module:
    """The network with all rewrites but those of some kinds."""
    rest = tuple(rewrite for rewrite in plan.rewrites if not isinstance(rewrite, kinds))
    return rebuilt(model, plan.model_copy(update={"rewrites": rest}))


def _merged(linear: nn.Module, example: Tensor, merge: Method) -> nn.Module:
    return rebuilt(linear, look(linear, example, [fold_batch_norm.find, merge]))


def _piece(model: nn.Module, names: Sequence[str]) -> nn.Module:
    modules = [model.get_submodule(name) for name in names]
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _read(model: nn.Module, names: Sequence[str], example: Tensor) -> dict[str, Shape]:
    """The shapes that modules read, batch 1; nothing is computed."""
    bare, shapes = copy.deepcopy(model).to("meta").eval(), {}

    def note(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[name] = tuple(inputs[0].shape)

    for name in names:
        bare.get_submodule(name).register_forward_pre_hook(partial(note, name))
    with torch.no_grad():
        bare(example.to("meta"))
    return shapes


def _timing(rewrite: Rewrite, now: Latency, then: Latency) -> Timing:
    return Timing(
        layers=rewrite.layers,
        now_ms=now.median_ms,
        then_ms=then.median_ms,
        ratio=compared(then, now),
    )
