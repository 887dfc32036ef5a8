"""One method on a network of one's own, one line each; see docs/methods.md.

    edgewright.score(net, (x, y), "zico")               training-free scores
    edgewright.prune(net, x, latency=0.6)               channels and blocks that go, by measured time
    edgewright.fastest(net, x)                          rewrites that change nothing, kept where they are faster
    edgewright.measure([net, "old.onnx"], x)            latencies, in turns
    edgewright.backward.filtered(net, patch=2)          a cheaper backward (in `backward.filtering`)

Thin: each calls the mechanism of its room with the options that most people need, and says where the others are. No
folder and no task is needed, and the network that is given stays as it is.
"""

import copy
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, overload

import torch.nn.functional as F
from torch import Tensor, nn

from edgewright.compress.base import Declined, Plan, apply
from edgewright.compress.planner import look
from edgewright.compress.prune.asked import Goal, Scope, Times, Worth
from edgewright.compress.prune.prune import plan_pruning
from edgewright.compress.worthwhile import worthwhile
from edgewright.core.errors import BadInput
from edgewright.device.agent import BURST
from edgewright.device.base import Device
from edgewright.device.compare import Ratio, compared
from edgewright.device.measure import Artifact, Latency, Runs
from edgewright.device.resolve import make_device
from edgewright.export.blocks import measure_blocks
from edgewright.export.choose.versus import artifact
from edgewright.export.onnx import export_onnx
from edgewright.export.stopwatch import stopwatch
from edgewright.proxy import base as proxy
from edgewright.proxy.base import Batch, Loss, Proxy
from edgewright.proxy.resolve import resolve_proxy
from edgewright.task.kind import Examples, one_a_sample

RUNS = 200  # timed runs of each network
What = nn.Module | str | Path


class Changed(NamedTuple):
    """What came of a network.

    model: the new network, in evaluation mode.   plan: what was done to it, which prints itself, and which
    `compress.write_folder` keeps with the weights.   ratio: its latency over that of the network as it was, measured in
    turns, with the 95 % interval; below 1 is faster.
    """

    model: nn.Module
    plan: Plan
    ratio: Ratio


def score(
    model: nn.Module,
    batches: Tensor | Batch | Iterable[Batch],
    proxies: str | Proxy | Iterable[str | Proxy],
    *,
    loss: Loss = F.cross_entropy,
    examples: Examples = one_a_sample,
    settled: bool = True,
    seed: int = 0,
) -> dict[str, float]:
    """Score a network by one or several proxies, in one pass over the data: untrained, or, by transfer scores (LogME,
    a linear probe and others), with weights that have learned another task.

        edgewright.score(net, (x, y), ["zico", "naswot", "params"])      # {"zico": 9.7, "naswot": 142.0, ...}

    Args:
        batches: inputs `x` (N, ...), where no proxy asks for targets; a pair of inputs and targets; or several pairs (a
            list, a data loader: all of it is read). Two or more batches are what ZiCo's variance is over.
        proxies: names (`edgewright proxies` lists them), or proxies, or both.
        loss: of outputs and targets, to a scalar; cross-entropy of classes by default.
        examples: for transfer scores, how features pair with targets: one example a sample, unless a kind of task says
            otherwise (`Kind.examples`).
        settled: False takes the statistics of batch norms anew before features are read: for weights just drawn. Where
            blocks of a learned network were cut it may help or harm; score both.
        seed: of what is random in a forward pass (dropout) or in a proxy (noise).
    Returns: the score of each proxy, by name, in its own unit and direction (`Proxy.higher_is_better`); the worst value
        where it is not finite. A proxy that is not defined for such a network is missing.
    Errors: BadInput for an unknown name, no batch or no targets where one asks for them, and a layer that is not known.
    More: `proxy.base.score`, which this calls.   Source: each proxy's own; docs/proxies.md.
    """
    named = [proxies] if isinstance(proxies, str | Proxy) else list(proxies)
    chosen = [resolve_proxy(one) if isinstance(one, str) else one for one in named]
    return proxy.score(model, _pairs(batches), chosen, seed=seed, loss=loss, examples=examples, settled=settled)


def _pairs(batches: Tensor | Batch | Iterable[Batch]) -> list[Batch]:
    """A list of pairs of inputs and targets, whichever way they were given."""
    if isinstance(batches, Tensor):
        return [(batches, None)]
    if isinstance(batches, tuple) and len(batches) == 2 and not isinstance(batches[0], tuple | list):
        return [batches]
    found = list(batches)
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in found):
        raise BadInput(
            "score: a batch is a pair of inputs and targets (None where there are none); give one, or a list"
        )
    return [(x, y) for x, y in found]


def prune(
    model: nn.Module,
    x: Tensor,
    *,
    latency: float | None = None,
    macs: float | None = None,
    targets: Tensor | None = None,
    loss: Loss = F.cross_entropy,
    keep: Sequence[str] = (),
    device: str = "cpu",
) -> Changed:
    """Remove channels, heads and residual blocks until a share of the latency, or of the multiply-adds, is left.

        smaller, plan, ratio = edgewright.prune(net, x, targets=y, latency=0.6)      # then train `smaller`

    Args:
        x: a batch of real inputs, on the network's device: importances are taken and the result is checked on it.
        latency: the share of the network's own latency that may be left, 0 to 1, held as measured: layers and whole
            networks are timed on the device as they would ship, a minute or so the first time.
        macs: the share of its multiply-adds instead, by counting.
        targets: of `x`. With them a channel is worth what the loss says (Taylor), else the size of its weights.
        loss: of outputs and targets, to a scalar.
        keep: patterns of names of layers and blocks that stay as they are: ("head.*", "*.downsample*").
        device: where it must run; `edgewright devices` lists them.
    Returns: the pruned network on a copy of the weights, what went, and how much of the time it takes. The network must
        train before it is of use; `compress.write_folder` keeps it, and the plan gives a fresh one the same shape.
    Errors: BadInput for no share or two, and what cannot be pruned; BudgetInfeasible where the share cannot be reached;
        GateFailed where the pruned network, measured, is not faster.
    More: `compress.prune.prune.plan_pruning`, with other importances, widths and ceilings.   Source: docs/smaller.md.
    """
    if (latency is None) == (macs is None):
        raise BadInput("prune: say what may be left: latency=0.6 of its time, or macs=0.5 of its multiply-adds")
    where = make_device(device)
    plan = plan_pruning(
        model,
        x,
        Goal(share=latency) if macs is None else Goal(share=macs, of="macs"),
        worth=Worth(importance="magnitude")
        if targets is None
        else Worth("taylor", [(x, targets)], lambda network, inputs, wanted: loss(network(inputs), wanted)),
        scope=Scope(keep=keep, round_to=where.align),
        times=Times(stopwatch(x, device=where), device=where),
    )
    smaller = apply(model, plan, x)
    return Changed(smaller, plan, _ratio(model, smaller, x, where))


def fastest(model: nn.Module, x: Tensor, *, device: str = "cpu") -> Changed:
    """Rewrite a network so that it computes the same, faster: nothing is trained, and what is not faster is left.

        quick, plan, ratio = edgewright.fastest(net, x)

    Batch norms go into their convolutions, what does nothing goes, and linear convolutions that follow each other, or
    stand side by side, become one where that is surely faster, measured block by block; each rewrite is checked on `x`
    to float rounding. Where the whole is surely slower after all, the network stays as it is.

    Args:
        x: a batch of real inputs, on the network's device.
        device: where it must run; `edgewright devices` lists them. Times are those of the exported float32 file.
    Returns: the new network, what was done and what was declined with its times, and how much of the time it takes.
        `plan.rewrites` is empty where nothing helps, and `model` then a copy.
    Errors: BadInput for a network that torch.export cannot follow; GateFailed for a rewrite that changes the outputs.
    More: `compress.plan`, `compress.worthwhile.worthwhile`; the fastest file, types and runtimes included: `edgewright
        export --choose`.   Source: docs/smaller.md.
    """
    where = make_device(device)
    plan = worthwhile(model, look(model, x), partial(measure_blocks, device=where))
    if not plan.rewrites:
        return Changed(copy.deepcopy(model).eval(), plan, Ratio(value=1, low=1, high=1))
    quick = apply(model, plan, x)
    ratio = _ratio(model, quick, x, where)
    if ratio.low <= 1:
        return Changed(quick, plan, ratio)
    why = f"all together are surely slower: {ratio.text()} of the time"
    declined = [Declined(kind=one.kind, layers=one.layers, why=why) for one in plan.rewrites]
    none = plan.model_copy(update={"rewrites": (), "after": plan.before, "declined": (*plan.declined, *declined)})
    return Changed(copy.deepcopy(model).eval(), none, Ratio(value=1, low=1, high=1))


@overload
def measure(
    what: What, x: Tensor | None = None, *, device: str = "cpu", threads: int = 1, runs: int = RUNS
) -> Latency: ...
@overload
def measure(
    what: Sequence[What], x: Tensor | None = None, *, device: str = "cpu", threads: int = 1, runs: int = RUNS
) -> list[Latency]: ...
def measure(
    what: What | Sequence[What],
    x: Tensor | None = None,
    *,
    device: str = "cpu",
    threads: int = 1,
    runs: int = RUNS,
) -> Latency | list[Latency]:
    """What a network or a file takes on a device, batch 1; several of them in turns, so that ratios hold.

        edgewright.measure(net, x).median_ms                     # milliseconds; also p90_ms, p99_ms, minimum_ms, noisy
        old, new = edgewright.measure([net, "smaller.onnx"], x)

    Args:
        what: a network, which is exported to ONNX in float32 for this; a file, whose ending names its runtime, or
            "RUNTIME:FILE"; a finished run's folder; or several of these.
        x: a batch as the network reads it, of which only the shape counts; for files that leave their shape open, too.
        device: `edgewright devices` lists them. Of a board that is described only, its law says the latency (`how`).
        threads: of the runtime.
        runs: timed runs of each, at least 20, rounded up to tens.
    Returns: a `Latency`, in ms, or one for each where several are given; `device.compare.compared` makes ratios.
        `noisy` says that the machine was busy, by a small network that is always measured beside yours.
    Errors: BadInput for a network without `x`, a file that is missing or broken, a runtime that is not installed.
    More: `edgewright measure FILES` in the shell; `device.base.Device.measure`.
    """
    if runs < 2 * BURST or threads < 1:
        raise BadInput(f"measure: at least {2 * BURST} runs and 1 thread are needed (got {runs} and {threads})")
    where = make_device(device, threads)
    if isinstance(what, nn.Module | str | Path):
        return _measured([what], x, where, runs)[0]
    return _measured(what, x, where, runs)


def _measured(networks: Sequence[What], x: Tensor | None, device: Device, runs: int) -> list[Latency]:
    """In turns; networks are exported for it."""
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        artifacts = [_artifact(one, x, Path(folder) / f"{number}.onnx") for number, one in enumerate(networks)]
        return device.measure(artifacts, Runs(most=-(-runs // BURST) * BURST))


def _artifact(what: What, x: Tensor | None, file: Path) -> Artifact:
    """What can be measured; a network is exported to `file`."""
    if not isinstance(what, nn.Module):
        return artifact(what, None if x is None else (1, *x.shape[1:]))
    if x is None:
        raise BadInput("measure: a network needs an input to be exported with: measure(net, x)")
    export_onnx(what, tuple(x.shape[1:]), file)
    return Artifact(file)


def _ratio(before: nn.Module, after: nn.Module, x: Tensor, device: Device) -> Ratio:
    old, new = _measured([before, after], x, device, RUNS)
    return compared(new, old)
