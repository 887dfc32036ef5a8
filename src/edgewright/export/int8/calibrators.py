r"""From how a tensor's values are spread to the range that 8 bits shall cover.

A calibrator is a function Histogram -> (low, high), within the least and the greatest value seen. Values outside are
clipped, values inside rounded to the nearest of 255 steps: a narrow range clips more and rounds less. The quantiser
widens each range to hold zero, which must have a number of its own (padding, ReLU).

Which is best differs from network to network; `quantise.py` tries them all and keeps the best.
"""

from collections.abc import Callable

import numpy as np

from edgewright.export.int8.histogram import Histogram

Calibrator = Callable[[Histogram], tuple[float, float]]

LEVELS = 256
KEPT = 0.9999  # of the values, by the percentile calibrator: one in ten thousand may be clipped at either end
FEW = 8  # counts a filled bin, on average, below which bins are merged before entropies are told
SHRINKS = np.linspace(0.02, 1, 99)


def minmax(histogram: Histogram) -> tuple[float, float]:
    """Everything seen: (min x, max x). One outlier costs all others their resolution.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, arXiv:1712.05877 (there as a moving average). Checked against: NumPy's min and max.
    """
    return _within(histogram, histogram.lowest, histogram.highest)


def percentile(histogram: Histogram) -> tuple[float, float]:
    """All but the outermost 0.01 % at each end: (q(1 - KEPT), q(KEPT)), q the quantile function.

    An end that holds many equal values (the zeros after a ReLU) is not cut. To the outer border of the bin.
    Source: Wu et al., "Integer Quantization for Deep Learning Inference", 2020, arXiv:2004.09602, section 4 (there of
    |x|, one range symmetric around zero; here each end of its own). Checked against: numpy.quantile to a bin's width.
    """
    kept, edges = KEPT * histogram.total, histogram.edges
    last = int(np.searchsorted(np.cumsum(histogram.counts), kept))
    first = int(np.searchsorted(np.cumsum(histogram.counts[::-1]), kept))
    return _within(histogram, edges[len(edges) - 2 - first], edges[last + 1])


def mse(histogram: Histogram) -> tuple[float, float]:
    r"""The range with the least mean squared error after rounding and clipping.

        min over (low, high) of  sum_i n_i (x_i - Q(x_i; low, high))^2,    Q(x) = low + s round((clip(x) - low) / s),
        s = (high - low) / 255

    n_i, x_i: count and middle of bin i. Searched by shrinking both ends together, then the upper and the lower alone.
    Source: Banner et al., "Post-Training 4-Bit Quantization of Convolutional Networks for Rapid-Deployment", NeurIPS
    2019, arXiv:1810.05723 (there in closed form for Gaussian and Laplacian values; here on the counts themselves).
    Checked against: a brute-force search on raw values.
    """
    low, high = _with_zero(histogram)
    if histogram.total == 0 or high <= low:
        return _within(histogram, low, high)
    filled = histogram.counts > 0
    values, counts = histogram.centres[filled], histogram.counts[filled]
    best = min(SHRINKS, key=lambda share: squared_error(values, counts, share * low, share * high))
    low, high = best * low, best * high
    upper = min(SHRINKS, key=lambda share: squared_error(values, counts, low, share * high))
    high = upper * high
    lower = min(SHRINKS, key=lambda share: squared_error(values, counts, share * low, high))
    return _within(histogram, lower * low, high)


def squared_error(values: np.ndarray, counts: np.ndarray, low: float, high: float) -> float:
    """Sum of squared errors of `values` (each `counts` times) in LEVELS equal steps over [low, high]."""
    step = (high - low) / (LEVELS - 1)
    if step <= 0:
        return float((counts * (values - low) ** 2).sum())
    rounded = np.round((np.clip(values, low, high) - low) / step) * step + low
    return float((counts * (values - rounded) ** 2).sum())


def entropy(histogram: Histogram) -> tuple[float, float]:
    r"""The clipping at which the quantised distribution says most about the true one (least Kullback-Leibler).

        min over t of  sum_i p_i log(p_i / q_i)

    p: counts of |x| up to t, what lies beyond added to the last bin; q: the same counts without what lies beyond,
    averaged over the filled bins of each of 128 steps. The range is (-t, t), cut to what occurs.
    Differs from the source: 64 thresholds instead of every bin; exact zeros (a ReLU's) are left out, for they are
    exact under every range; where a tensor has few values, bins are merged first, since counts of one say nothing of a
    distribution.
    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017. Checked against: a plain loop over bins, and known cases
    (uniform values are not clipped, one far outlier is).
    """
    negative, positive = np.split(histogram.counts, 2)
    sizes = positive + negative[::-1]
    if not sizes.any():
        return 0.0, 0.0
    sizes[0] = 0
    steps = LEVELS // 2
    while len(sizes) > 4 * steps and sizes.sum() < FEW * np.count_nonzero(sizes):
        sizes = sizes.reshape(-1, 2).sum(1)
    top = int(np.flatnonzero(sizes)[-1]) + 1 if sizes.any() else 1
    starts = {max(steps, round(top * share)) for share in np.linspace(0.05, 1, 64)} | {max(top, steps)}
    best = min(sorted(starts, reverse=True), key=lambda bins: divergence(sizes, bins, steps))  # of equals the widest
    threshold = best * histogram.width / len(sizes)
    return _within(histogram, -threshold, threshold)


def divergence(sizes: np.ndarray, bins: int, steps: int) -> float:
    """Kullback-Leibler divergence, in nats, of `sizes` clipped to the first `bins` from these in `steps` equal steps.

    Where the steps know nothing of a bin, a ten-thousandth of a count stands for it.
    """
    inside = sizes[:bins].astype(np.float64)
    if inside.sum() == 0:
        return float("inf")
    true = inside.copy()
    true[-1] += sizes[bins:].sum()
    owner = np.arange(len(inside)) * steps // bins
    mass = np.bincount(owner, weights=inside, minlength=steps)
    members = np.bincount(owner, weights=true > 0, minlength=steps)
    told = np.maximum((mass / np.maximum(members, 1))[owner], 1e-4)
    held = true > 0
    p, q = true[held] / true.sum(), told[held] / inside.sum()
    return float((p * np.log(p / q)).sum())


def _with_zero(histogram: Histogram) -> tuple[float, float]:
    return min(0.0, histogram.lowest), max(0.0, histogram.highest)


def _within(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """Cut to what occurs; zeros where nothing did."""
    if histogram.total == 0:
        return 0.0, 0.0
    low = min(max(float(low), histogram.lowest), histogram.highest)
    return low, max(low, min(float(high), histogram.highest))


CALIBRATORS: dict[str, Calibrator] = {"minmax": minmax, "percentile": percentile, "mse": mse, "entropy": entropy}
