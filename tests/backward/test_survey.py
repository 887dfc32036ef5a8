"""Looking at a model on shapes leaves the model alone."""

import torch
from torch import nn

from edgewright.backward.survey import on_meta, survey


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
