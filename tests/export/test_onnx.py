import logging

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgewright.core.errors import EdgewrightError
from edgewright.device.here.runtime import open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.export.onnx import export_onnx, fold_batch_norms


class Branching(nn.Module):
    """Every case: a plain pair, a conv with two readers, a shared conv, a norm written before its conv, a lone norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3, self.norm4, self.lone = (
            nn.BatchNorm2d(6),
            nn.BatchNorm2d(6),
            nn.BatchNorm2d(6, affine=False),
            nn.BatchNorm2d(6),
            nn.BatchNorm2d(6),
        )
        self.plain = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(6, 6, 5, padding=2, groups=6)
        self.split = nn.Conv2d(6, 6, 1)
        self.shared = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm1(self.plain(x)))
        x = x + self.norm3(self.depthwise(x))
        both = self.split(x)
        x = self.norm2(both) * both
        x = self.norm4(self.shared(x)) + self.shared(self.lone(x))
        gate = nn.functional.hardsigmoid(x.mean((2, 3), keepdim=True))
        return self.head((x * gate).mean((2, 3)))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights, and above all the statistics of batch norms, far from their first values."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + noise if "running_var" in name else noise - 0.5)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = randomised(Branching())
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, (3, 12, 20), path, {"classes": '["a", "b"]', "mean": "[1.5]"})
    return model, path


def test_outputs_equal_pytorch(exported):
    model, path = exported
    x = torch.randn(7, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.eval()(x).numpy()
    session = open_session(path)
    found = np.concatenate([run_session(session, [x[i : i + 1].numpy()])[0] for i in range(7)])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pairs_are_folded_and_only_those():
    model = randomised(Branching()).eval()
    x = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = model(x)
        assert fold_batch_norms(model, x[:1]) == 2
        torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    kept = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert kept == ["norm2", "norm4", "lone"]


def test_file_is_plain(exported):
    _, path = exported
    proto = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert proto.ir_version <= 10
    shapes = [
        (value.name, [size.dim_value for size in value.type.tensor_type.shape.dim])
        for value in (*proto.graph.input, *proto.graph.output)
    ]
    assert shapes == [("input", [1, 3, 12, 20]), ("logits", [1, 5])]
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["mean"] == "[1.5]"
    assert "edgewright" in metadata
    assert b"site-packages" not in path.read_bytes()
    assert b".py" not in path.read_bytes()
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("GlobalAveragePool") == 1  # the gate's; the head's mean drops its axes, so it stays a mean
    onnx.checker.check_model(proto, full_check=True)


def test_same_model_gives_the_same_bytes_quietly(exported, tmp_path, capfd):
    model, path = exported
    model.train()
    state = torch.get_rng_state()
    export_onnx(model.to(memory_format=torch.channels_last), (3, 12, 20), tmp_path / "again.onnx",
                {"mean": "[1.5]", "classes": '["a", "b"]'})  # fmt: skip
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    assert model.training
    assert isinstance(model.norm1, nn.BatchNorm2d)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == 0


class Unexportable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[: int(x.sum().item())]


def test_what_cannot_be_exported_is_one_sentence_and_no_file(tmp_path):
    with pytest.raises(EdgewrightError, match="cannot be exported to ONNX"):
        export_onnx(Unexportable(), (3, 4, 5), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
