r"""Latency and energy as linear laws over what a network computes and moves: fitted from a few tens of networks.

    latency_ms = lambda . f,   lambda >= 0;     f = 1, MACs by kind of layer, bytes moved, bytes of weights, operators

No table and no profiler: any device that can be timed on some networks has such a model, and a block's part of it takes
microseconds to compute, which is what a search that asks thousands of times a second needs.

    energy_mJ = e_mac MACs + e_byte (bytes moved + bytes of weights) + p_idle latency_ms / 1000

in millijoule per inference, with energies per operation from the literature unless the device's own are given.

Source: Li et al., "FLASH: Fast Neural Architecture Search with Hardware Optimization", ACM TECS 2021, arXiv:2108.00568.
Differs from the paper: one error is one relative error (small networks count as much as large ones), channels are
rounded up to the vector's width, and energies are given, not measured, where the machine has no meter.
Checked against: coefficients that are known, and held-out networks on this machine (benchmarks/codesign.py).
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.optimize import nnls

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.ranking import spearman
from edgewright.device.table.pieces import cut, work
from edgewright.ir.graph import Graph
from edgewright.ir.liveness import graph_peak_bytes
from edgewright.ir.network import FLOAT_BYTES

FEATURES = ("one", "dense", "pointwise", "depthwise", "linear", "moved", "weights", "operators")
_LAYERS = {name: index for index, name in enumerate(FEATURES[1:5], 1)}
# 45 nm, 32-bit float: multiply 3.7 pJ and add 0.9 pJ; 640 pJ for 32 bits from DRAM (Horowitz, ISSCC 2014).
MAC_JOULE = 4.6e-12
BYTE_JOULE = 160e-12


@functools.lru_cache(maxsize=65_536)
def features(graph: Graph) -> np.ndarray:
    """What a graph computes and moves, by `FEATURES`; adds up over the blocks of a network, but for the leading one.

    MACs with channels in whole groups of 16; "moved": bytes of activations read and written; "operators": pieces that
    the runtime runs.
    """
    found = np.zeros(len(FEATURES))
    for piece in cut(graph)[0]:
        _, macs, reads, writes, weights, _ = work(piece)
        layer = piece.work.layer
        if layer in _LAYERS:
            found[_LAYERS[layer]] += macs
        found[5:] += FLOAT_BYTES * (reads + writes), FLOAT_BYTES * weights, 1
    return found


def network_features(blocks: Iterable[Graph]) -> np.ndarray:
    """The features of a whole network."""
    total = np.sum([features(graph) for graph in blocks], axis=0)
    total[0] = 1
    return total


def peak_bytes(blocks: Iterable[Graph]) -> int:
    """Peak activation bytes of a chain of blocks: the worst block's, since one tensor passes between two of them."""
    return max(_block_peak(graph) for graph in blocks)


_block_peak = functools.lru_cache(maxsize=65_536)(graph_peak_bytes)


class AnalyticModel(Frozen):
    """A fitted law. `coefficients`: ms per unit of each of FEATURES.   median_error: of each network predicted by a fit
    without it, relative.   rank_correlation: Spearman's, of the same, None where
    all are alike.   networks: how many it was fitted on."""

    coefficients: tuple[float, ...]
    median_error: float
    rank_correlation: float | None
    networks: int

    def latency_ms(self, found: np.ndarray) -> float:
        """Predicted latency of a network with these features."""
        return float(found @ np.array(self.coefficients))

    def energy_mj(
        self, found: np.ndarray, *, mac_joule: float = MAC_JOULE, byte_joule: float = BYTE_JOULE, idle_watt: float = 0.0
    ) -> float:
        """Energy of one inference, mJ, by the law at the top of this file."""
        joule = mac_joule * found[1:5].sum() + byte_joule * found[5:7].sum()
        return float(1e3 * joule + idle_watt * self.latency_ms(found))


def fit_analytic(found: np.ndarray, latency_ms: Sequence[float] | np.ndarray) -> AnalyticModel:
    """Non-negative least squares on relative errors.

    Args: found: (networks, features), from `network_features`.   latency_ms: measured, > 0.
    Errors: BadInput for fewer networks than 5, or a latency that is no positive number.
    """
    times = np.asarray(latency_ms, dtype=float)
    if len(times) < 5 or found.shape != (len(times), len(FEATURES)):
        raise BadInput(f"a latency model needs at least 5 measured networks; got {len(times)}")
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise BadInput("a latency model needs positive latencies; one of the measured ones is not")
    left_out = np.array([_solve(*_without(found, times, i)) @ found[i] for i in range(len(times))])
    return AnalyticModel(
        coefficients=tuple(_solve(found, times).tolist()),
        median_error=float(np.median(np.abs(left_out / times - 1))),
        rank_correlation=spearman(left_out, times),
        networks=len(times),
    )


def _without(found: np.ndarray, times: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    return np.delete(found, index, axis=0), np.delete(times, index)


def _solve(found: np.ndarray, times: np.ndarray) -> np.ndarray:
    scale = found.max(axis=0) + 1e-12
    solution, _ = nnls(found / scale / times[:, None], np.ones(len(times)), maxiter=10_000)
    return solution / scale
