"""Products and window means against float64 and torch's own, by whichever library; and what is done without oneDNN."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from edgewright.backward import kernels
from edgewright.backward.kernels import product, window_means

SIZE = st.integers(1, 70)


def made(rows: int, columns: int, turned: bool) -> Tensor:
    """Off the origin, so that a row or column left out shows; `turned`: stored by columns."""
    tensor = torch.randn(columns, rows).T if turned else torch.randn(rows, columns)
    return tensor + 0.5


@given(SIZE, SIZE, SIZE, st.booleans(), st.booleans(), st.booleans())
def test_product(m: int, k: int, n: int, first: bool, second: bool, cut: bool) -> None:
    torch.manual_seed(m * 10_000 + k * 100 + n)
    a, b = made(m, k, first), made(k, n, second)
    if cut:  # neither starts where its memory does
        a, b = a[m // 2 :, k // 3 :], b[k // 3 :]
    found = product(a, b)
    assert found.shape == (len(a), n) and found.is_contiguous()
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)


def test_product_of_a_wide_factor_stored_by_columns() -> None:
    a, b = torch.randn(300, 90).T, torch.randn(300, 8)  # the narrow one is turned in its place
    found = product(a, b)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)


def test_product_of_batches_and_of_nothing() -> None:
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
def test_window_means(shape: tuple[int, ...], sides: tuple[int, int], before: tuple[int, int], whole: bool) -> None:
    x = (torch.randn(shape) + 1).contiguous(memory_format=torch.channels_last)
    wanted = functional.avg_pool2d(x.double(), sides, sides, before, count_include_pad=whole)
    found = window_means(x, sides, before, whole=whole)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_without_avx512_it_is_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert kernels._onednn.__wrapped__() is None


def test_a_torch_that_calls_it_otherwise_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: object) -> Tensor:
        raise RuntimeError(f"expected 3 arguments, got {len(arguments)}")

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for operator in (gone, lambda x, w, *rest: x @ w.T + 1):
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator)
        assert kernels._onednn.__wrapped__() is None


def test_torch_s_own_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(33, 65), torch.randn(65, 17)
    x = torch.randn(3, 40, 96, 100).contiguous(memory_format=torch.channels_last)
    found = product(a, b), window_means(x, (4, 4), (0, 0), whole=True)
    monkeypatch.setattr(kernels, "_onednn", lambda: None)
    torch.testing.assert_close(product(a, b), found[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(window_means(x, (4, 4), (0, 0), whole=True), found[1], rtol=1e-4, atol=1e-5)
