"""MeCo against numpy on stored outputs, and the official code's number."""

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.core.seed import derive
from edgewright.proxy.base import score
from edgewright.proxy.meco import meco


def test_equals_numpy_on_stored_outputs(chain):
    image = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(derive(2, "proxy", "meco", 0)))
    found = []

    def hook(module: nn.Module, arguments: object, output: torch.Tensor) -> None:
        rows = output[0].detach().double().flatten(1).numpy() if output.ndim == 4 else np.zeros((0, 0))
        if 1 < rows.shape[0] < rows.shape[1]:
            with np.errstate(invalid="ignore"):
                correlation = np.nan_to_num(np.corrcoef(rows))
            found.append(np.linalg.eigvalsh(correlation)[0])

    for layer in chain.modules():
        if not any(layer.children()):
            layer.register_forward_hook(hook)
    chain.train()
    chain(image)
    assert len(found) > 8
    value = score(type(chain)(), [(torch.zeros(2, 3, 40, 80), None)], [meco()], seed=2)["meco"]
    assert value == pytest.approx(sum(found), rel=1e-4)


def test_equals_the_official_code(chain, chain_batch):
    # HamsterMimi/MeCo 0d830dd2, foresight/pruners/measures/meco.py, torch.manual_seed(derive(0, "proxy", "meco", 0)).
    assert score(chain, [chain_batch], [meco(compat=True)])["meco_compat"] == pytest.approx(6.649995, rel=1e-5)


def test_dependent_channels_count_nothing(chain_batch):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    whole = score(network, [chain_batch], [meco()])["meco"]
    assert whole == pytest.approx(0, abs=1e-5)  # four maps of three channels
    narrow = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    assert score(narrow, [chain_batch], [meco()])["meco"] > 0.01
    with torch.no_grad():
        narrow[0].weight[1] = -narrow[0].weight[0]
    assert score(narrow, [chain_batch], [meco()])["meco"] == pytest.approx(0, abs=1e-5)


def test_small_images_of_deep_strides_have_a_value():
    network = nn.Sequential(
        *(layer for _ in range(5) for layer in (nn.Conv2d(3, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU()))
    )
    assert score(network, [(torch.zeros(2, 3, 32, 32), None)], [meco()])["meco"] > 0
