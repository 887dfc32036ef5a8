import copy

import torch
from torch import nn

from edgewright.train.ema import Ema


def test_closed_form_with_and_without_the_warm_up_of_the_decay() -> None:
    model = nn.Linear(3, 2)
    ema = Ema(model, decay=0.3)
    expected = copy.deepcopy(model.weight.detach())
    generator = torch.Generator().manual_seed(0)
    for t in range(8):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=generator))
        ema.update()
        decay = min(0.3, (1 + t) / (10 + t))  # 0.1, 0.18, 0.25, 0.3 from the warm-up, then the ceiling
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.model.weight, expected)


def test_norm_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm2d(2)
    ema = Ema(model, decay=0.999)
    model(torch.randn(4, 2, 5, 3) + 7)
    ema.update()  # the first decay is 1 / 10
    torch.testing.assert_close(ema.model.running_mean, 0.9 * model.running_mean)
    torch.testing.assert_close(ema.model.running_var, 0.1 + 0.9 * model.running_var)
    assert ema.model.num_batches_tracked.item() == 1


def test_the_average_is_another_model_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    ema = Ema(model, decay=0.9)
    assert model.training and not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert ema.model[0].weight.data_ptr() != model[0].weight.data_ptr()
