"""Looking at a model on shapes leaves the model alone."""

import pytest
import torch
from torch import nn

from edgewright.backward.plans.planner import plan
from edgewright.backward.survey import on_meta, other_macs, survey
from edgewright.core.errors import BadInput


class Tied(nn.Module):
    """One layer under two names, one parameter of two layers, one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(6, 6)
        self.body = nn.Sequential(nn.Linear(5, 6), shared, nn.ReLU(), shared)
        self.head = nn.Linear(6, 6)
        self.head.weight = shared.weight
        self.norm = nn.BatchNorm1d(6)
        self.scale = self.again = nn.Parameter(torch.rand(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.head(self.body(x))) * self.scale + self.again


def test_tied_layers_and_weights_are_given_back() -> None:
    model = Tied()
    before = {name: (id(value), value.clone()) for name, value in model.named_parameters(remove_duplicate=False)}
    sites = survey(model, torch.zeros(3, 5))
    output, storages = on_meta(model, torch.zeros(3, 5))
    assert {site.name: len(site.calls) for site in sites} == {
        "body.0": 1, "body.1": 2, "body.2": 1, "head": 1, "norm": 1,
    }  # fmt: skip
    assert output.shape == (3, 6) and output.is_meta
    assert len(storages) == 11  # 8 parameters and 3 buffers, each once
    for name, value in model.named_parameters(remove_duplicate=False):
        assert id(value) == before[name][0]
        assert torch.equal(value, before[name][1])
    assert not any(value.is_meta for value in model.state_dict().values())


class Around(torch.nn.Module):
    """Series (B, 5, 9): what rules serve, and products around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv1d(5, 8, 3, padding="same", groups=1), torch.nn.BatchNorm1d(8)
        self.up = torch.nn.ConvTranspose1d(8, 6, 2, 2)
        self.lstm = torch.nn.LSTM(6, 4, batch_first=True)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.norm(self.conv(x)).relu()).transpose(1, 2)
        x = self.lstm(x @ (x.transpose(1, 2) @ x))[0]
        return self.head(x[:, -1])


def test_what_multiplies_outside_the_layers_is_counted() -> None:
    model = Around()
    by_hand = 9 * 8 * 6 * 2 + 2 * 18 * 6 * 6 + 18 * 16 * (6 + 4)
    assert other_macs(model, torch.zeros(7, 5, 9)) == 7 * by_hand
    assert sum(call.macs() for site in survey(model, torch.zeros(7, 5, 9)) for call in site.calls) == 7 * (
        9 * 8 * 15 + 4 * 3
    )
    assert other_macs(torch.nn.Sequential(model.conv, model.norm), torch.zeros(7, 5, 9)) == 0
    found = plan(model, torch.zeros(8, 5, 9))
    assert found.other_macs == 3 * 8 * by_hand
    assert found.macs == found.other_macs + sum(row.forward_macs + row.backward_macs for row in found.layers)
    with pytest.raises(BadInput, match="'bilinear' is a bilinear, whose multiply-adds cannot be counted"):
        other_macs(Mixed(), torch.zeros(2, 5))


class Mixed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Bilinear(5, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x, x)
