"""Plans: which rewrites a network allows, one method after the other, and the folder that holds what came of one.

found = plan(model, torch.zeros(1, 3, 224, 224))
print(found)
smaller = apply(model, found, samples)
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.compress.base import Declined, Found, Plan, Rewrite, must_save, rebuilt, totals
from edgewright.compress.rewrites import fold_batch_norm, merge_linear, remove_identity
from edgewright.compress.rewrites.depthshrinker import Linearise
from edgewright.compress.rewrites.drop_block import Drop
from edgewright.compress.rewrites.fold_batch_norm import Fold
from edgewright.compress.rewrites.merge_linear import Merge, PadFirst
from edgewright.compress.rewrites.prune_channels import Prune
from edgewright.compress.rewrites.remove_identity import RemoveIdentity
from edgewright.compress.wiring import Wiring, trace
from edgewright.core.data import read_json
from edgewright.core.errors import BadInput
from edgewright.core.files import write_text
from edgewright.core.weights import put_weights, read_weights, write_weights

Method = Callable[[nn.Module, Wiring], Found]
METHODS: Mapping[str, Method] = {
    "remove_identity": remove_identity.find,
    "fold_batch_norm": fold_batch_norm.find,
    "pad_first": merge_linear.pad_first,
    "merge_linear": merge_linear.find,
}
EXACT_METHODS = ("remove_identity", "fold_batch_norm", "merge_linear")
REWRITES: tuple[type[Rewrite], ...] = (RemoveIdentity, Fold, PadFirst, Merge, Linearise, Prune, Drop)
PLAN_FILE, WEIGHTS_FILE = "compress.json", "model.safetensors"


def plan(
    model: nn.Module,
    example: Tensor,
    methods: Sequence[str | Method] = EXACT_METHODS,
    wiring: Wiring | None = None,
) -> Plan:
    """The rewrites that `methods` find in `model`, each looking at what the ones before it left.

    Nothing is computed and the model stays as it is: the plan is made on shapes alone.

    Args:
        example: a batch as the network reads it; only its shape and type count.
        methods: names of `METHODS`, in order, or functions of a model and its wiring (a method with its options bound).
            By default all that are exact.
        wiring: of `model`, for who has traced it already.
    Errors: BadInput for an unknown name, a network that torch.export cannot follow, and where nothing is saved.
    """
    return must_save(look(model, example, methods, wiring))


def look(
    model: nn.Module,
    example: Tensor,
    methods: Sequence[str | Method] = EXACT_METHODS,
    wiring: Wiring | None = None,
) -> Plan:
    """The same, for who can do with a plan that saves nothing."""
    bare = copy.deepcopy(model).to("meta").eval()
    wiring = wiring or trace(bare, example)
    before = totals(bare, wiring.macs, len(wiring.steps))
    rewrites: list[Rewrite] = []
    declined: list[Declined] = []
    for method in map(_method, methods):
        found = method(bare, wiring)
        declined += found.declined
        rewrites += found.rewrites
        if found.rewrites:
            with torch.no_grad():
                for rewrite in found.rewrites:
                    rewrite.carry_out(bare)
            wiring = trace(bare, example)
    after = totals(bare, wiring.macs, len(wiring.steps))
    return Plan(
        input_shape=tuple(example.shape), rewrites=tuple(rewrites), before=before, after=after, declined=tuple(declined)
    )


def _method(method: str | Method) -> Method:
    if not isinstance(method, str):
        return method
    if method not in METHODS:
        raise BadInput(f"no rewrite is called '{method}'; there are {', '.join(METHODS)}")
    return METHODS[method]


def read_plan(data: Any, where: str) -> Plan:
    """A plan from what `Plan.model_dump` gave, or JSON gave back.
    Errors: BadInput that names `where`, for anything that is no plan of these rewrites."""
    kinds = {kind.model_fields["kind"].default: kind for kind in REWRITES}
    if not isinstance(data, dict) or not isinstance(data.get("rewrites"), (list, tuple)):
        raise BadInput(f"{where}: not a plan of rewrites")
    rewrites: list[Rewrite] = []
    for number, item in enumerate(data["rewrites"], 1):
        name = item.get("kind") if isinstance(item, dict) else None
        if name not in kinds:
            raise BadInput(f"{where}: rewrite {number} is of unknown kind {name!r}; known: {', '.join(kinds)}")
        rewrites.append(kinds[name].parse(item, f"{where}, rewrite {number}"))
    return Plan.parse({**data, "rewrites": tuple(rewrites)}, where)


def write_folder(folder: Path, model: nn.Module, found: Plan) -> None:
    """The plan and the weights of `model`, which came of it: compress.json and model.safetensors."""
    write_weights(folder / WEIGHTS_FILE, model)
    write_text(folder / PLAN_FILE, found.to_json())


def read_folder(folder: Path, fresh: nn.Module) -> tuple[nn.Module, Plan]:
    """The compressed network, from `fresh`, the network before compression with any weights, and its plan.
    Errors: BadInput for a folder that lacks a file, and for another network's plan or weights."""
    found = read_plan(read_json(folder / PLAN_FILE), str(folder / PLAN_FILE))
    model = rebuilt(fresh, found)
    weights = folder / WEIGHTS_FILE
    put_weights(model, read_weights(weights), f"{weights}: not the weights of this network")
    return model.eval(), found
