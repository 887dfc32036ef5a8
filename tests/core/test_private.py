"""What other libraries do not promise to keep, as it is and gone."""

from types import SimpleNamespace

import onnx
import pytest
import torch
from torch import Tensor
from torch.onnx._internal import _lazy_import

from edgewright.core import private
from edgewright.core.private import executorch_threads, linear_by_onednn, operators_listed_once, quantisable


def test_products_by_onednn_are_products() -> None:
    found = linear_by_onednn()
    if found is None:
        pytest.skip("this torch has no such operator")
    x, w = torch.randn(7, 33), torch.randn(12, 33)
    torch.testing.assert_close(found(x, w), x @ w.T, rtol=1e-4, atol=1e-5)


def test_an_operator_that_is_gone_or_another_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: object) -> Tensor:
        raise RuntimeError(f"expected 3 arguments, got {len(arguments)}")

    for operator in (gone, lambda x, w, *rest: x @ w.T + 1, None):
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator)
        assert linear_by_onednn() is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert linear_by_onednn() is None


def test_without_the_registries_the_operators_are_those_that_were_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = quantisable()
    assert {"Conv", "Gemm", "MatMul", "Add", "Relu", "GlobalAveragePool"} <= set(known)
    assert all(onnx.defs.has(name) for name in private.QUANTISABLE if name != "EmbedLayerNormalization")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime.quantization.registry", None)
    assert quantisable() == list(private.QUANTISABLE)


def test_operators_are_listed_once_for_all_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each export outside lists its own again."""
    asked: list[str] = []
    apis = SimpleNamespace(get_torchlib_ops=lambda: asked.append("listed") or ["an operator"])
    monkeypatch.setattr(_lazy_import, "onnxscript_apis", apis)
    for _ in range(2):
        with operators_listed_once():
            assert [*apis.get_torchlib_ops()] == [*apis.get_torchlib_ops()] == ["an operator"]
    assert asked == ["listed"]
    apis.get_torchlib_ops()
    assert asked == ["listed", "listed"]
    monkeypatch.delattr(_lazy_import, "onnxscript_apis")
    with operators_listed_once():
        assert asked == ["listed", "listed"]


def test_threads_of_executorch(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []
    assert executorch_threads(SimpleNamespace(_unsafe_reset_threadpool=told.append), 3)
    assert told == [3] and not capsys.readouterr().err
    assert not executorch_threads(SimpleNamespace(), 3)
    assert "cannot be told to take 3 thread(s)" in capsys.readouterr().err
