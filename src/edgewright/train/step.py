"""One step of a training, from batches to new weights; it knows nothing of epochs, clocks or files.

    mix -> forward -> loss -> backward, batch by batch -> clip -> optimizer -> running average

What learns and how it is differentiated is the caller's: parameters that `requires_grad`, layers under a rule
(`backward.training_plan.applied`), the loss as a function.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.core.seed import derive
from edgewright.core.tensors import ask, mapped, rows
from edgewright.model.settle import NORMS
from edgewright.task.kind import Kind
from edgewright.train.checkpoint import flatten_optimizer, restore_optimizer
from edgewright.train.clip import RunningClip
from edgewright.train.ema import Ema
from edgewright.train.optimizer import make_optimizer
from edgewright.train.precision import Precision, Turns, computing
from edgewright.train.recipe import Recipe

Loss = Callable[[nn.Module, Any, Any], Tensor]  # network, inputs, targets: for trees of each


def loss_of(kind: Kind, smoothing: float = 0.0) -> Loss:
    """The default: the kind's own loss of what the network gives."""

    def loss(model: nn.Module, inputs: Any, targets: Any) -> Tensor:
        return kind.loss(ask(model, inputs), targets, smoothing)

    return loss


class Learner:
    """A network that learns in place, and all that its steps have left behind: average, optimizer, usual norm.

    Args:
        loss: (model, inputs, targets) -> scalar, a mean over the batch; None for the kind's own.
        seed: of mixing and dropout; a step's randomness is a function of it and of the step's number.
        turns: how steps find out the precision they compute in; None for the recipe's, or float32.
    Errors: BadInput where nothing learns.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        kind: Kind,
        *,
        loss: Loss | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        turns: Turns | None = None,
    ) -> None:
        self.network, self.recipe, self.kind, self.seed, self.device = network, recipe, kind, seed, device
        self.loss = loss or loss_of(kind, recipe.label_smoothing)
        self.learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
        if not self.learning:
            raise BadInput("nothing is to learn: no parameter of the model requires a gradient")
        network.to(device)
        if recipe.channels_last:
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._changing = _changing(network, recipe.freeze_norms)
        self.average = None if recipe.ema_decay is None else Ema(network, recipe.ema_decay)
        self.optimizer = make_optimizer(network, recipe)
        self.clip = None if recipe.clip is None else RunningClip(recipe.clip, recipe.longest)
        self.turns = turns or Turns(recipe.precision or "float32")
        self.step = 0
        self._to_train()

    @property
    def shown(self) -> nn.Module:
        """What is looked at and handed out: the running average where there is one."""
        return self.network if self.average is None else self.average.model

    def learn(self, parts: Sequence[tuple[Any, Any]], rate: float) -> float:
        """One step, on the inputs and targets of some batches together; their loss. Where that is no number there was
        no step."""
        if not self.network.training:
            self._to_train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout can draw from torch's global state only; a step's own seed lets a resumed training go on exactly.
        _draw_from(derive(self.seed, "dropout", self.step), self.device)
        mixing = torch.Generator().manual_seed(derive(self.seed, "mix", self.step))
        mixed = [self.kind.mixed(x, y, mixing, self.recipe.mixup, self.recipe.cutmix) for x, y in parts]
        value = self.turns.take(lambda precision: self._gradients(mixed, precision))
        if math.isfinite(value):
            if self.clip is not None:
                self.clip(self.learning.values())
            self.optimizer.step()
            if self.average is not None:
                self.average.update()
            self.step += 1
        return value

    def placed(self, inputs: Any) -> Any:
        """On the device, maps in the recipe's layout."""

        def place(x: Tensor) -> Tensor:
            last = self.recipe.channels_last and x.ndim == 4
            return x.to(self.device, memory_format=torch.channels_last) if last else x.to(self.device)

        return mapped(place, inputs)

    def taken(self) -> dict[str, Tensor]:
        """A copy of what is shown, of what changes only."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors(self.shown).items()}

    def hand_out(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Put what is shown, or what was `taken`, into the network, and leave that on the CPU, evaluating."""
        self.optimizer.zero_grad(set_to_none=True)
        self._put(self.network, self._tensors(self.shown) if tensors is None else tensors)
        self.network.to("cpu").to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """All that another process needs to go on as if nothing had happened: tensors by part, and plain facts."""
        average = {} if self.average is None else self._tensors(self.average.model)
        parts = {
            "model": self._tensors(self.network),
            "average": average,
            "optimizer": flatten_optimizer(self.optimizer),
        }
        usual = 0.0 if self.clip is None else self.clip.usual
        return parts, {"step": self.step, "usual_norm": usual, "precision": self.turns.chosen}

    def restore(self, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
        """The inverse of `state`. Errors: KeyError, RuntimeError or ValueError for those of another network."""
        self._put(self.network, parts["model"])
        restore_optimizer(self.optimizer, parts["optimizer"])
        self.step = int(facts["step"])
        if self.average is not None:
            self._put(self.average.model, parts["average"])
            self.average.updates = self.step
        if self.clip is not None:
            self.clip.usual = float(facts["usual_norm"])
        self.turns = Turns(self.turns.chosen or facts["precision"])

    def _to_train(self) -> None:
        self.network.train()
        for layer in self.network.modules():
            if self.recipe.freeze_norms and isinstance(layer, NORMS):
                layer.eval()

    def _gradients(self, parts: Sequence[tuple[Any, Any]], precision: Precision) -> float:
        """Of the mean loss over all samples; that loss."""
        self.optimizer.zero_grad(set_to_none=True)
        samples, total = sum(rows(y) for _, y in parts), 0.0
        for inputs, targets in parts:
            with computing(precision, self.device):
                here = mapped(lambda y: y.to(self.device), targets)
                loss = self.loss(self.network, self.placed(inputs), here) * (rows(targets) / samples)
            total += loss.item()
            loss.backward()
        return total

    def _tensors(self, network: nn.Module) -> dict[str, Tensor]:
        tensors = network.state_dict()
        return {name: tensors[name] for name in self._changing}

    @torch.no_grad()
    def _put(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        for name, place in self._tensors(network).items():
            place.copy_(tensors[name])


def _draw_from(seed: int, device: torch.device | str) -> None:
    """As `torch.manual_seed`, which formats and keeps the whole stack at every call where no GPU was used yet."""
    torch.default_generator.manual_seed(seed)
    if torch.device(device).type == "cuda":
        torch.cuda.manual_seed(seed)


def _changing(network: nn.Module, freeze_norms: bool) -> list[str]:
    """Names of what a training changes: parameters that learn, and buffers, but those of norms that stand still."""
    norms = {name for name, layer in network.named_modules() if freeze_norms and isinstance(layer, NORMS)}
    learns = {name: p.requires_grad for name, p in network.named_parameters(remove_duplicate=False)}
    return [name for name in network.state_dict() if learns.get(name, name.rpartition(".")[0] not in norms)]
