"""The mechanism: plan, then apply.

A *rewrite* is a value: which layers, what is done to them, what that saves, and how near the network stays. Methods
find rewrites in the wiring of a network (`wiring.trace`) without computing anything; a *plan* is rewrites in order.
Carrying one out is surgery on modules by their names, so the same plan gives a freshly built network the same
structure, and a plan and a safetensors file hold a compressed network.

    fold_batch_norm   scale and shift of a norm into the convolution before it                     exact
    remove_identity   what gives back in use what it reads                                        exact
    merge_linear      linear convolutions one after the other, residual included, into one         exact
    pad_first         a chain's padding moved to its first convolution, so that it can merge       train afterwards
    linearise         a block's activations removed (DepthShrinker)                               train afterwards

`apply` checks every rewrite that says it is exact, by itself: what its layers give on what they read before, and what
the whole network gives, before and after (`watch.py`). Which methods there are is known to `planner` only.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from edgewright.compress.watch import forced, given, largest, portions, recorded
from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput, GateFailed

EXACT = 1e-4  # of the largest output: float32 rounding over a deep network; in float64 such rewrites agree to 1e-10


class Saving(Frozen):
    """What is less afterwards (negative: more). params: parameters.   macs: multiply-adds of one input (see
    `ir.counts`).   bytes: parameters and buffers as they are kept.   operators: steps of the wiring."""

    params: int = 0
    macs: int = 0
    bytes: int = 0
    operators: int = 0

    def __add__(self, other: "Saving") -> "Saving":
        return Saving(**{name: getattr(self, name) + getattr(other, name) for name in Saving.model_fields})

    def __bool__(self) -> bool:
        return any(getattr(self, name) > 0 for name in Saving.model_fields)

    def __str__(self) -> str:
        return f"{self.params:>11,} params {self.macs:>14,} MACs {self.bytes:>12,} bytes {self.operators:>4} operators"


class Totals(Saving):
    """The same four of a whole network."""


class Rewrite(Frozen):
    """One change. layers: names of modules, the one whose output the change must keep last.   tolerance: largest
    difference, as a share of the largest number that was there before, that rounding may make; None where the change
    alters what is computed and training must follow.   note: what a person should know."""

    kind: str
    layers: tuple[str, ...] = Field(min_length=1)
    saves: Saving = Saving()
    tolerance: float | None = EXACT
    note: str = ""

    def promises(self) -> Saving:
        """What it is worth: what it saves, or what it makes possible to save afterwards."""
        return self.saves

    def carry_out(self, model: nn.Module) -> None:
        """Make the change, in place. It depends on the names and on the modules found there, never on weights."""
        raise NotImplementedError

    def __str__(self) -> str:
        near = "train after" if self.tolerance is None else f"to {self.tolerance:g}"
        names = ", ".join(self.layers) if len(self.layers) < 4 else f"{self.layers[0]} ... {self.layers[-1]}"
        return f"{self.kind:<16} {near:<11} {self.saves}  {names}" + (f"  ({self.note})" if self.note else "")


class Declined(Frozen):
    """What looked like something to rewrite and is left alone, and why, in a sentence."""

    kind: str
    layers: tuple[str, ...]
    why: str


class Found(Frozen):
    """What a method found in a wiring."""

    rewrites: tuple[SerializeAsAny[Rewrite], ...] = ()
    declined: tuple[Declined, ...] = ()


class Plan(Frozen):
    """Rewrites in order. input_shape: of the example, with its batch.   before, after: the network without and with
    them, by counting.   `str` prints one line a rewrite, and sums."""

    input_shape: tuple[int, ...]
    rewrites: tuple[SerializeAsAny[Rewrite], ...]
    before: Totals
    after: Totals
    declined: tuple[Declined, ...] = ()

    @property
    def saves(self) -> Saving:
        return sum((rewrite.saves for rewrite in self.rewrites), Saving())

    @property
    def trains(self) -> bool:
        """Whether training must follow."""
        return any(rewrite.tolerance is None for rewrite in self.rewrites)

    def then(self, other: "Plan") -> "Plan":
        """One plan for both, this one first: what a folder holds after training between them."""
        return Plan(
            input_shape=self.input_shape,
            rewrites=(*self.rewrites, *other.rewrites),
            before=self.before,
            after=other.after,
            declined=(*self.declined, *other.declined),
        )

    def __str__(self) -> str:
        share = (
            100 * (1 - self.after.macs / max(1, self.before.macs)),
            100 * (1 - self.after.bytes / max(1, self.before.bytes)),
        )
        lines = [str(rewrite) for rewrite in self.rewrites]
        lines += [f"left alone: {', '.join(one.layers)}: {one.why}" for one in self.declined]
        lines.append(f"{'saved':<28} {self.saves}  ({share[0]:.1f} % of the MACs, {share[1]:.1f} % of the bytes)")
        lines += [f"{'before':<28} {self.before}", f"{'after':<28} {self.after}"]
        return "\n".join(lines)


def must_save(plan: Plan) -> Plan:
    """The plan, if it is worth anything.
    Errors: BadInput where no rewrite saves anything or makes a saving possible."""
    if sum((rewrite.promises() for rewrite in plan.rewrites), Saving()):
        return plan
    why = "".join(f"; {', '.join(one.layers)}: {one.why}" for one in plan.declined[:3])
    raise BadInput(f"there is nothing to save in this network by these rewrites{why}")


def apply(model: nn.Module, plan: Plan, samples: Tensor) -> nn.Module:
    """The plan carried out on a copy of `model` in evaluation mode, each rewrite checked on `samples` by itself.

    samples: a batch of real inputs, on the model's device. A rewrite with a tolerance t must keep what its last layer
    gives, and what the network gives, to t times the largest number there. Rewrites of one kind are looked at together,
    each reading exactly what it read before, so that this takes three passes of the network a kind; only where one is
    off are they gone through one by one, to name it.
    Errors: GateFailed that names the rewrite and its largest difference; BadInput for another network's plan.
    """
    with torch.no_grad():
        return _applied(model, plan, samples)


def rebuilt(model: nn.Module, plan: Plan) -> nn.Module:
    """The same structure from a freshly built network, unchecked: for weights that are read from a file next."""
    result = copy.deepcopy(model).eval()
    for rewrite in plan.rewrites:
        _carry_out(rewrite, result)
    return result


def _applied(model: nn.Module, plan: Plan, samples: Tensor) -> nn.Module:
    result = copy.deepcopy(model).eval()
    counted = _sizes(result)
    done = 0
    for together in _rounds(plan.rewrites):
        checked = together[0].tolerance is not None
        before = copy.deepcopy(result) if checked else result
        for rewrite in together:
            _carry_out(rewrite, result)
        for part in portions(samples, plan.input_shape) if checked else ():
            if not _keep_their_word(before, result, together, part):
                _one_by_one(before, together, done + 1, part)
        done += len(together)
    saved = Saving(**{name: counted[name] - count for name, count in _sizes(result).items()})
    if (saved.params, saved.bytes) != (plan.saves.params, plan.saves.bytes):
        raise GateFailed(
            f"the plan saves {saved.params:,} parameters and {saved.bytes:,} bytes where it says "
            f"{plan.saves.params:,} and {plan.saves.bytes:,}: it was made for another network"
        )
    return result


def _rounds(rewrites: Sequence[Rewrite]) -> Iterator[list[Rewrite]]:
    """Rewrites that can be told apart when they are looked at together: in a row, of one kind and tolerance, no module
    of one inside a module of another."""
    together: list[Rewrite] = []
    taken: set[str] = set()
    for rewrite in rewrites:
        around = {name[:end] for name in rewrite.layers for end in (*_dots(name), len(name))}
        alike = together and (rewrite.kind, rewrite.tolerance) == (together[0].kind, together[0].tolerance)
        inside = any(other.startswith(f"{name}.") for name in rewrite.layers for other in taken)
        if together and (not alike or inside or around & taken):
            yield together
            together, taken = [], set()
        together.append(rewrite)
        taken |= set(rewrite.layers)
    if together:
        yield together


def _dots(name: str) -> list[int]:
    return [place for place, letter in enumerate(name) if letter == "."]


def _keep_their_word(before: nn.Module, after: nn.Module, together: Sequence[Rewrite], samples: Tensor) -> bool:
    """Whether each rewrite of a round keeps what its layer gives, reading what it read before, and all of them
    together what the network gives. In three passes, however many there are."""
    allowed = {rewrite.layers[-1]: rewrite.tolerance or 0.0 for rewrite in together}
    seen, wanted = recorded(before, list(allowed), samples)
    off = forced(after, seen, samples)
    if off is None or any(not worst <= allowed[name] * scale for name, worst, scale in off):
        return False
    worst, scale = largest(wanted, after(samples))
    return worst <= max(allowed.values()) * scale


def _one_by_one(before: nn.Module, together: Sequence[Rewrite], first: int, samples: Tensor) -> None:
    """The rewrites of a round in turn, to name the one that is off; slow, for when one is."""
    model = copy.deepcopy(before)
    for number, rewrite in enumerate(together, first):
        watched = rewrite.layers[-1]
        was = given(model, watched, samples)
        _carry_out(rewrite, model)
        what = f"rewrite {number}, {rewrite.kind} of {', '.join(rewrite.layers)}"
        for where, old, new in zip((watched, "the network"), was, given(model, watched, samples), strict=True):
            _compare(what, where, old, new, rewrite.tolerance or 0.0)


def _carry_out(rewrite: Rewrite, model: nn.Module) -> None:
    names = dict(model.named_modules(remove_duplicate=False))
    missing = [name for name in rewrite.layers if name not in names]
    if missing:
        raise BadInput(f"{rewrite.kind}: the network has no layer '{missing[0]}'; this is another network's plan")
    try:
        with torch.no_grad():
            rewrite.carry_out(model)
    except (AttributeError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{rewrite.kind} of {', '.join(rewrite.layers)} cannot be carried out on this network ({reason})"
        ) from None


def _compare(what: str, where: str, old: Tensor, new: Tensor, tolerance: float) -> None:
    if old.shape != new.shape:
        raise GateFailed(f"{what}: {where} gives {tuple(new.shape)} instead of {tuple(old.shape)}")
    worst, scale = largest(old, new)
    if not worst <= tolerance * scale:  # so written, a difference that is not a number fails as well
        raise GateFailed(
            f"{what}: {where} is off by {worst:.3g} at most, where its largest number is {scale:.3g} and "
            f"{tolerance:g} of that is allowed"
        )


def _sizes(model: nn.Module) -> dict[str, int]:
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    }


def saved_by(before: list[nn.Module], after: list[nn.Module], macs: int = 0, operators: int = 0) -> Saving:
    """What replacing modules by others saves; a module without numbers counts nothing."""
    old, new = (_sizes(nn.ModuleList(modules)) for modules in (before, after))
    return Saving(
        params=old["params"] - new["params"], bytes=old["bytes"] - new["bytes"], macs=macs, operators=operators
    )


def totals(model: nn.Module, macs: int, operators: int) -> Totals:
    """The whole network, counted; `macs` and `operators` are those of its wiring."""
    return Totals(**_sizes(model), macs=macs, operators=operators)


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where another one was."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
