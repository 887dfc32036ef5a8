"""Peak memory of scoring against that of one plain training step: every tensor counted while it is alive."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgewright.proxy.base import score
from edgewright.proxy.resolve import proxies

MOST = 1.3


class Held(TorchDispatchMode):
    """Bytes of the storages made while it is on, and the most that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: set[int] = set()
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.alive:
                storage = tensor.untyped_storage()
                self.alive.add(storage._cdata)
                self.bytes += storage.nbytes()
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.bytes)
        return result

    def freed(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.bytes -= size


def peak(run: Callable[[], object]) -> int:
    with Held() as held:
        run()
    return held.peak


def network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)]
    for _ in range(6):
        layers += [nn.ReLU(inplace=True), nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))


def wide() -> nn.Module:
    """Memory is the weights'."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(768, 600), nn.ReLU(), nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 5)
    )


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(32, 3, 16, 16, generator=generator), torch.randint(0, 5, (32,), generator=generator))
        for _ in range(2)
    ]


def training_step(model: nn.Module) -> None:
    """With momentum, as everybody trains."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x, y = batches()[0]
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def test_the_count_sees_what_is_alive():
    def run() -> None:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second.view(10, 100) * 2
        del second, third

    assert peak(run) == 8000


@pytest.mark.parametrize("proxy", proxies().values(), ids=lambda proxy: proxy.name)
def test_one_proxy_within_a_training_step(proxy):
    step = peak(lambda: training_step(network()))
    given = batches()
    assert peak(lambda: score(network(), given, [proxy])) <= MOST * step


@pytest.mark.parametrize("build", [network, wide])
def test_the_gradient_proxies_together_within_a_training_step(build):
    names = ("grad_norm", "snip", "plain", "fisher", "jacob_cov", "naswot", "log_sizes", "zico")
    chosen = [proxies()[name] for name in names]
    step, given = peak(lambda: training_step(build())), batches()
    assert peak(lambda: score(build(), given, chosen)) <= MOST * step
