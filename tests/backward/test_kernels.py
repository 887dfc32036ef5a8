"""Products and window means against float64 and torch's own, by either library; how it is chosen; without oneDNN."""

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from edgewright.backward import kernels
from edgewright.backward.kernels import choices, product, window_means

SIZE = st.integers(1, 70)


@pytest.fixture(params=["torch", "oneDNN", "measured"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By either library whatever the sizes, and as it is."""
    monkeypatch.setattr(kernels, "_chosen", {})
    if request.param == "measured":
        return request.param
    if request.param == "oneDNN" and kernels._onednn() is None:
        pytest.skip("torch has no such operator here")
    monkeypatch.setattr(kernels, "SMALLEST", 1)
    monkeypatch.setattr(kernels, "_by_onednn", lambda *_: request.param == "oneDNN")
    return request.param


def made(rows: int, columns: int, turned: bool) -> Tensor:
    """Off the origin, so that a row or column left out shows; `turned`: stored by columns."""
    tensor = torch.randn(columns, rows).T if turned else torch.randn(rows, columns)
    return tensor + 0.5


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(m=SIZE, k=SIZE, n=SIZE, first=st.booleans(), second=st.booleans(), cut=st.booleans())
def test_product(library: str, m: int, k: int, n: int, first: bool, second: bool, cut: bool) -> None:
    torch.manual_seed(m * 10_000 + k * 100 + n)
    a, b = made(m, k, first), made(k, n, second)
    if cut:  # neither starts where its memory does
        a, b = a[m // 2 :, k // 3 :], b[k // 3 :]
    found = product(a, b)
    assert found.shape == (len(a), n) and found.is_contiguous()
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)


def test_product_of_a_wide_factor_stored_by_columns(library: str) -> None:
    a, b = torch.randn(300, 90).T, torch.randn(300, 8)  # the narrow one is turned in its place
    found = product(a, b)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)


def test_product_of_batches_and_of_nothing(library: str) -> None:
    a, b = torch.randn(3, 5, 7), torch.randn(7, 4)
    torch.testing.assert_close(product(a, b), a @ b, rtol=1e-4, atol=1e-5)
    assert product(torch.zeros(0, 7), b).shape == (0, 4)
    assert torch.equal(product(torch.zeros(5, 0), torch.zeros(0, 4)), torch.zeros(5, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_torch_s(dtype: torch.dtype) -> None:
    a, b = torch.randn(5, 7).to(dtype), torch.randn(7, 4).to(dtype)
    assert torch.equal(product(a, b), a @ b)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("shape", "sides", "before"),
    [
        ((3, 40, 96, 100), (8, 8), (0, 2)),
        ((2, 17, 190, 203), (4, 3), (1, 1)),  # a number of channels that fills no vector
        ((9, 128, 1, 1003), (1, 2), (0, 1)),
        ((2, 8, 12, 20), (4, 4), (0, 0)),  # small: torch's own
    ],
)
def test_window_means(
    library: str, shape: tuple[int, ...], sides: tuple[int, int], before: tuple[int, int], whole: bool
) -> None:
    x = (torch.randn(shape) + 1).contiguous(memory_format=torch.channels_last)
    wanted = functional.avg_pool2d(x.double(), sides, sides, before, count_include_pad=whole)
    found = window_means(x, sides, before, whole=whole)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


class Works:
    """Two works of given seconds, on a clock that only they move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, own: float, other: float) -> None:
        self.now, self.ran = 0.0, list[str]()
        self.own, self.other = (partial(self._run, *one) for one in (("torch", own), ("oneDNN", other)))
        monkeypatch.setattr(kernels, "_chosen", {})
        monkeypatch.setattr(kernels, "_clock", lambda: self.now)

    def _run(self, name: str, seconds: float) -> Tensor:
        self.now += seconds * (9 if self.ran.count(name) == 0 else 1)  # the first one makes ready
        self.ran.append(name)
        return torch.zeros(1)

    def taken(self, *kind: object) -> bool:
        return kernels._by_onednn(kind, self.own, self.other)


@pytest.mark.parametrize(
    ("own", "other", "name"),
    [(1e-4, 5e-5, "oneDNN"), (1e-4, 9.5e-5, "torch"), (5e-5, 1e-4, "torch"), (0.05, 0.01, "oneDNN")],
)
def test_the_surely_quicker_one_is_taken_and_kept(monkeypatch: pytest.MonkeyPatch, caplog, own, other, name) -> None:
    works = Works(monkeypatch, own, other)
    caplog.set_level("DEBUG", "edgewright.backward.kernels")
    assert works.taken("product", 64, 32) is (name == "oneDNN")
    turns = 1 + (kernels.FEWEST if own > 0.02 else kernels.TURNS)
    assert works.ran == ["torch", "oneDNN"] * turns
    assert works.taken("product", 64, 32) is (name == "oneDNN") and len(works.ran) == 2 * turns
    assert works.taken("product", 64, 64) is (name == "oneDNN") and len(works.ran) == 4 * turns
    assert list(choices().values()) == [name] * 2
    assert [f": {name}" in record.message for record in caplog.records] == [True] * 2
    assert f"torch {1e3 * own:.3f} ms, oneDNN {1e3 * other:.3f} ms" in caplog.records[0].message


def test_other_threads_are_another_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    works = Works(monkeypatch, 1.0, 0.1)
    works.taken("product", 64, 32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    works.taken("product", 64, 32)
    assert len(choices()) == 2


def test_what_is_alike_in_time_is_chosen_once_and_what_is_tiny_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[tuple[object, ...]] = []
    monkeypatch.setattr(kernels, "_onednn", lambda: lambda x, w: x @ w.T)
    monkeypatch.setattr(kernels, "_by_onednn", lambda kind, *_: kinds.append(kind) or False)
    for m, k, n in ((60, 50, 40), (58, 33, 48), (60, 50, 400), (6, 5, 4)):
        product(torch.randn(m, k), torch.randn(k, n))
    product(torch.randn(50, 60).T, torch.randn(50, 40))
    assert len(kinds) == 4 and kinds[0] == kinds[1] and len(set(kinds)) == 3


def test_measuring_leaves_no_trace_in_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_chosen", {})
    a, b = torch.randn(80, 60, requires_grad=True), torch.randn(60, 70, requires_grad=True)
    if kernels._onednn() is None:
        pytest.skip("torch has no such operator here")
    with torch.no_grad():
        product(a, b)
    assert choices() and a.grad is None and b.grad is None


def test_without_onednn_it_is_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(33, 65), torch.randn(65, 17)
    x = torch.randn(3, 40, 96, 100).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(kernels, "_onednn", lambda: None)
    assert torch.equal(product(a, b), a @ b)
    assert torch.equal(window_means(x, (4, 4), (0, 0), whole=True), functional.avg_pool2d(x, (4, 4), (4, 4)))
