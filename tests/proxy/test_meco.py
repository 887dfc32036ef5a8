"""MeCo and MeCo_opt against numpy on stored outputs, and the official code's numbers."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.core.seed import derive
from edgewright.proxy.base import score
from edgewright.proxy.scores.meco import meco, meco_opt


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
    assert score(chain, [chain_batch], [meco(compat=True)])["meco_compat"] == pytest.approx(6.649995, rel=1e-4)


def test_dependent_channels_count_nothing(chain_batch):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    whole = score(network, [chain_batch], [meco()])["meco"]
    assert whole == pytest.approx(0, abs=1e-4)  # four maps of three channels
    narrow = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    assert score(narrow, [chain_batch], [meco()])["meco"] > 0.01
    with torch.no_grad():
        narrow[0].weight[1] = -narrow[0].weight[0]
    assert score(narrow, [chain_batch], [meco()])["meco"] == pytest.approx(0, abs=1e-4)


def test_small_images_of_deep_strides_have_a_value():
    network = nn.Sequential(
        *(layer for _ in range(5) for layer in (nn.Conv2d(3, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU()))
    )
    assert score(network, [(torch.zeros(2, 3, 32, 32), None)], [meco()])["meco"] > 0


def wide() -> nn.Sequential:
    """More than eight channels, and more channels than pixels at the end."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(
            *(nn.Conv2d(3, 11, 3, 2), nn.BatchNorm2d(11), nn.ReLU(), nn.Conv2d(11, 20, 3, 16), nn.Tanh()),
            *(nn.Conv2d(20, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)),
        )


def test_a_few_channels_equal_numpy_on_stored_outputs():
    image = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(derive(2, "proxy", "meco", 0)))
    drawn = random.Random(derive(2, "proxy", "meco_opt", 0))
    network, total, x = wide().train(), 0.0, image
    for layer in network:
        x = layer(x)
        if x.ndim == 4:
            chosen = drawn.sample(range(x.shape[1]), min(6, x.shape[1]))
            rows = x[0, chosen].detach().double().flatten(1).numpy()
            if len(chosen) < rows.shape[1]:
                total += np.linalg.eigvalsh(np.corrcoef(rows))[0] * x.shape[1] / len(chosen)
    value = score(wide(), [(torch.zeros(2, 3, 40, 80), None)], [meco_opt(channels=6)], seed=2)["meco_opt"]
    assert value == pytest.approx(total, rel=1e-4)


def test_a_few_channels_equal_the_official_code(chain, chain_batch):
    # HamsterMimi/MeCo 0d830dd2, correlation/NAS_Bench_201.py, get_score(chain, inputs[:1], "cpu", "meco_opt") after
    # random.seed(derive(0, "proxy", "meco_opt", 0)); the classifier has nine outputs there, which add nothing.
    found = score(chain, [chain_batch], [meco_opt(compat=True)])["meco_opt_compat"]
    assert found == pytest.approx(7.651958, rel=1e-4)


def test_a_few_channels_are_never_below_all_of_them_and_equal_where_there_are_few():
    batch = (torch.zeros(2, 3, 70, 66), None)
    every, few, whole = (score(wide(), [batch], [proxy]) for proxy in (meco(), meco_opt(), meco_opt(channels=20)))
    assert every["meco"] == pytest.approx(whole["meco_opt"], rel=1e-4)
    assert few["meco_opt"] > 1.5 * every["meco"]


def test_one_channel_is_refused():
    with pytest.raises(BadInput, match="at least two channels"):
        meco_opt(channels=1)
