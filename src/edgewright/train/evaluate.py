"""How good a network is on a part of a task."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.task.base import Split, TaskSpec, batches


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network answered on a split.

    Args:
        accuracy: top-1, percent.
        probabilities: (N, classes) float32, rows sum to 1.
        labels: (N,) int64, the truth.
    """

    accuracy: float
    probabilities: Tensor
    labels: Tensor

    @property
    def predictions(self) -> Tensor:
        """(N,) int64: the likeliest class of each image."""
        return self.probabilities.argmax(1)

    def confusion(self) -> Tensor:
        """(classes, classes) int64: entry [t, p] counts the images of class t that were taken for class p."""
        classes = self.probabilities.shape[1]
        return torch.bincount(self.labels * classes + self.predictions, minlength=classes**2).view(classes, classes)

    def per_class_accuracy(self) -> Tensor:
        """(classes,) float32, percent; NaN for a class without images."""
        counts = self.confusion()
        return 100 * counts.diagonal() / counts.sum(1)


@torch.no_grad()  # not inference_mode: what the network keeps of this pass must be of use when it learns
def evaluate(
    model: nn.Module,
    split: Split,
    spec: TaskSpec,
    resolution: int,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Run every image of `split` through `model` in evaluation mode; weights and training mode stay as they were."""
    if len(split) == 0:
        raise BadInput(f"{spec.name}: there are no images to evaluate on")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        parts = [
            model(x.to(device)).float().softmax(1).cpu()
            for x, _ in batches(split, spec, batch_size=batch_size, resolution=resolution)
        ]
    finally:
        for module, training in modes:
            module.training = training
    probabilities = torch.cat(parts)
    correct = (probabilities.argmax(1) == split.labels).sum().item()
    return Evaluation(100 * correct / len(split), probabilities, split.labels)
