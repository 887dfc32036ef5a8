"""Networks are exported once and timed together."""

import pytest
import torch
from torch import nn

from edgewright.export import stopwatch as module
from edgewright.export.stopwatch import stopwatch


def test_more_work_takes_longer_and_an_export_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (nn.Conv2d(3, width, 3) for width in (8, 256))
    timed = stopwatch(torch.zeros(4, 3, 24, 20), runs=20)
    a, b = timed([small, large])
    assert 0 < a < b
    monkeypatch.setattr(module, "export_onnx", lambda *_, **__: pytest.fail("exported again"))
    assert len(timed([large])) == 1
