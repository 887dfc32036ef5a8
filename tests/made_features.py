"""Features of a network that was never there, for tests of the scores that read them."""

import torch
from torch import Tensor

from edgewright.proxy.base import Proxy, Subject
from edgewright.proxy.features import Features


def example() -> Features:
    """22 samples of four classes of unequal sizes, six features after a ReLU, a source of five classes: what official
    codes were run on."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3])
    centres = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    values = (centres[labels] + torch.randn(22, 6, generator=generator, dtype=torch.float64)).relu()
    source = torch.randn(22, 5, generator=generator, dtype=torch.float64) + values[:, :5]
    return Features(values, source, labels)


def drawn(count: int, width: int, classes: int, *, seed: int = 0, apart: float = 1.0) -> Features:
    """count samples, their classes' centres `apart` in units of the noise; a source of width + 1 classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    centres = apart * torch.randn(classes, width, generator=generator, dtype=torch.float64)
    values = centres[labels] + torch.randn(count, width, generator=generator, dtype=torch.float64) + 0.5
    source = torch.randn(count, width + 1, generator=generator, dtype=torch.float64)
    return Features(values, source, labels)


def value(proxy: Proxy, features: Features) -> float:
    return float(proxy.finish(proxy.init(Subject(torch.nn.Identity(), 1, features=features))))


def changed(features: Features, values: Tensor | None = None, targets: Tensor | None = None) -> Features:
    """The same samples with other features, or other targets."""
    return Features(
        features.values if values is None else values,
        features.source,
        features.targets if targets is None else targets,
    )


def size(features: Features) -> str:
    """What a test on these features is called."""
    return "x".join(map(str, features.values.shape))
