r"""A device from a few measurements: 10 to 20 timed networks, and what other devices took, predict all the others.

Devices are taken for draws of one Gaussian process, whose mean and covariance over the networks are those of the
devices that are known; it is conditioned on the few measurements of the new one. With t_d the latency of device d over
its mean, smoothed by regression on the networks' structure, m the mean of the t_d, and s the mean of the samples:

    y / s = f + e,     f ~ GP(m, k),     e_i ~ N(0, (sigma f_i)^2)
    k(x, z) = 10 + 0.09 m(x) m(z) + sum_d (t_d - m)(x) (t_d - m)(z) / D + a^2 u(x).u(z) + b^2 v(x).v(z)

u: totals that latency nearly adds up over (how many operators of each kind), v: details (which operator where), both
standardised to mean square length 1. The first two terms leave the level and the scale free, the third is the learned
covariance; the last two are what the new device has of its own.
Nobody says what a new device is like, so up to four views of it are weighed by marginal likelihood: with the known
devices and without (m = 1, no third term); each as it stands, and with every network in the place of the one that is
left when what does not reach the output is taken out, for a runtime that does not run dead operators.

Noise is relative, as timing noise is, and has the tails of Student's t with 4 degrees of freedom, by weights: a sample
that is far from what the others predict counts less. sigma, a and b are not chosen: the prediction is the mean over a
fixed grid of them, weighted by marginal likelihood. Closed form, no seed; under a second, and 1 s more to smooth 23
tables of 15,625 networks. (The form was settled on the 24 devices of HELP's table, the views of dead operators on the
15 of OneProxy's.)

`suggest` says which networks to measure: greedily those that lower the mean relative variance over the space the most.

Source: Lee et al., "HELP: Hardware-Adaptive Efficient Latency Prediction for NAS via Meta-Learning", NeurIPS 2021,
arXiv:2106.08630, has the problem (10 samples, other devices as prior) and the tables; Minka and Picard, "Learning how
to learn is learning with point sets", 1997, the covariance learned from earlier tasks.
Differs from HELP: a closed form in the place of a meta-learned network.
Checked against: draws from its own prior, the dense formulas, the tables of 24 + 15 devices (benchmarks/new_device.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.ranking import spearman
from edgewright.device.few.smooth import smooth, unit

LEAST_SAMPLES = 5
LEVEL, SCALE = 10.0, 0.09  # variances of the free level and of the scale of the mean device, in units of the mean
TOTALS = (0.003, 0.03, 0.1, 0.3, 1.0)  # the grid: a
DETAILS = (0.003, 0.01, 0.03, 0.1)  # b
NOISE = tuple(np.geomspace(0.005, 0.3, 9).tolist())  # sigma
TAIL = 4.0  # degrees of freedom of the noise; 2 to 8 give the same to 0.001 of Spearman
ROUNDS = 5
FLOOR = 0.1  # no prediction is below this part of the fastest sample
CANDIDATES = 4_000


class TransferModel(Frozen):
    """What is known of the new device.

    latency_ms: predicted, of every network.   spread_ms: standard deviation of one measurement about it: what is not
    known of the device and its timing noise together.   indices, measured_ms: the samples.   median_error,
    rank_correlation: of each sample predicted by a fit without it; relative, Spearman's (None where all are alike).
    noise: timing noise, relative.   priors: the devices it was learned from.   weights: of the views, in the order
    of the text at the top.
    """

    latency_ms: tuple[float, ...]
    spread_ms: tuple[float, ...]
    indices: tuple[int, ...]
    measured_ms: tuple[float, ...]
    median_error: float
    rank_correlation: float | None
    noise: float
    priors: tuple[str, ...]
    weights: tuple[float, ...]

    def predict(self) -> np.ndarray:
        """Predicted latency of the whole space, ms, (N,)."""
        return np.array(self.latency_ms)

    @classmethod
    def from_json(cls, text: str, where: str = "device") -> "TransferModel":
        """What `to_json` wrote; BadInput, naming `where`, for anything else."""
        try:
            return cls.parse(json.loads(text), where)
        except ValueError as error:
            raise BadInput(f"{where}: not valid JSON ({error})") from None


@dataclass(frozen=True, eq=False)
class Known:
    """One view of devices before the first measurement. centre: (N,), m. parts: the factors of the three kernels, each
    (N, columns): shared, totals, details. names: of the known devices."""

    centre: np.ndarray
    parts: tuple[np.ndarray, np.ndarray, np.ndarray]
    names: tuple[str, ...]

    def at(self, rows: np.ndarray) -> "Known":
        """The same of the networks `rows`."""
        first, second, third = self.parts
        return Known(self.centre[rows], (first[rows], second[rows], third[rows]), self.names)


def known(
    features: np.ndarray,
    priors: Mapping[str, np.ndarray] | None = None,
    details: np.ndarray | None = None,
    live: np.ndarray | None = None,
) -> tuple[Known, ...]:
    """The views of what a device may be like; `fit_known` and `suggest` take them. The first is the main one.

    Args: features: (N, F), totals.   priors: name to latency (N,), any unit, NaN where it is not known.   details:
        (N, G), default: none; known devices are smoothed with them, else with the features.   live: (N,), the row of
        the network that is left when what does not reach the output is taken out.
    Errors: BadInput for arrays that do not fit or numbers that are no latencies.
    """
    totals = unit(_matrix("features", features))
    size = len(totals)
    own = np.zeros((size, 0)) if details is None else unit(_matrix("details", details, size))
    alone = np.ones((size, 1))
    tables = [smooth(priors, own if own.shape[1] else totals), alone] if priors else [alone]
    views = [_view(each, totals, own, tuple(priors or ()) if each is not alone else ()) for each in tables]
    if live is not None:
        rows = np.asarray(live)
        if rows.shape != (size,) or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= size:
            raise BadInput(f"live: {size} rows from 0 to {size - 1} are needed")
        views += [view.at(rows) for view in views]
    return tuple(views)


def _view(tables: np.ndarray, totals: np.ndarray, details: np.ndarray, names: tuple[str, ...]) -> Known:
    centre = tables.mean(axis=1)
    apart = (tables - centre[:, None]) / np.sqrt(tables.shape[1])
    shared = np.column_stack([np.full(len(centre), np.sqrt(LEVEL)), np.sqrt(SCALE) * centre, apart])
    return Known(centre, (shared, totals, details), names)


def fit(
    indices: Sequence[int] | np.ndarray,
    latency_ms: Sequence[float] | np.ndarray,
    features: np.ndarray,
    priors: Mapping[str, np.ndarray] | None = None,
    details: np.ndarray | None = None,
    live: np.ndarray | None = None,
) -> TransferModel:
    """The new device, from `latency_ms` of the networks `indices`.

    Args: features, priors, details, live: as in `known`.   indices: each once.
    Errors: BadInput for fewer than 5 samples, an index twice or outside the space, a latency that is no positive
        number, and as in `known`.
    """
    return fit_known(indices, latency_ms, known(features, priors, details, live))


def fit_known(
    indices: Sequence[int] | np.ndarray, latency_ms: Sequence[float] | np.ndarray, views: Sequence[Known]
) -> TransferModel:
    """`fit`, where several devices share what is known before."""
    rows, times = _samples(indices, latency_ms, len(views[0].centre))
    level = float(times.mean())
    problems = [_Problem(view, rows, times / level) for view in views]
    weights, found = _mixed([problem.posterior() for problem in problems])
    left_out = [_mixed([problem.without(place) for problem in problems])[1][0] for place in range(len(rows))]
    errors = np.abs(np.array(left_out) / problems[0].times - 1)
    floor = FLOOR * times.min()
    return TransferModel(
        latency_ms=_short(np.maximum(found[0] * level, floor)),
        spread_ms=_short(np.sqrt(np.maximum(found[1] - found[0] ** 2, 1e-12)) * level),
        indices=tuple(rows.tolist()),
        measured_ms=tuple(times.tolist()),
        median_error=float(np.median(errors)),
        rank_correlation=spearman(left_out, times),
        noise=float(np.exp(found[2])),
        priors=views[0].names,
        weights=tuple(float(f"{weight:.4g}") for weight in weights),
    )


Answer = tuple[float, np.ndarray, np.ndarray, float]  # log evidence, mean, mean square, mean log noise


def _mixed(answers: Sequence[Answer]) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The views by their evidence: weights; mean, mean square and log noise."""
    evidence = np.array([answer[0] for answer in answers])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    mean, square, noise = (
        np.sum([weight * answer[part] for weight, answer in zip(weights, answers, strict=True)], axis=0)
        for part in (1, 2, 3)
    )
    return weights, (mean, square, noise)


def suggest(
    count: int, views: Sequence[Known], *, measured: Sequence[int] = (), among: Sequence[int] | np.ndarray | None = None
) -> list[int]:
    """The `count` networks to measure next, best first: each the one that lowers the mean of variance over latency
    squared the most, given those before it and those `measured`; at the middle of the grid (a, b, sigma).

    By the main view. among: candidates, default: all; of more than 4,000 every so many-th is one.
    Errors: BadInput for more than there are.
    """
    before = views[0]
    size = len(before.centre)
    allowed = np.arange(size) if among is None else np.unique(np.asarray(among, dtype=int))
    step = max(1, len(allowed) // max(CANDIDATES, count + len(measured)))
    candidates = np.setdiff1d(allowed[::step], np.asarray(measured, dtype=int))
    if not 1 <= count <= len(candidates):
        raise BadInput(f"{count} networks to measure: choose 1 to {len(candidates)}")
    scales = (1.0, TOTALS[len(TOTALS) // 2], DETAILS[len(DETAILS) // 2])
    basis = np.hstack([scale * part for scale, part in zip(scales, before.parts, strict=True)])
    sigma = (NOISE[len(NOISE) // 2] * before.centre) ** 2
    step = max(1, size // CANDIDATES)
    relative = basis[::step] / before.centre[::step, None]
    weight = relative.T @ relative / len(relative)
    covariance, found = np.eye(basis.shape[1]), []
    for index in measured:
        covariance = _conditioned(covariance, basis[index], sigma[index])
    while len(found) < count:
        spread = basis[candidates] @ covariance
        gain = np.einsum("nk,kl,nl->n", spread, weight, spread, optimize=True)
        gain /= np.einsum("nk,nk->n", spread, basis[candidates]) + sigma[candidates]
        best = int(candidates[np.argmax(gain)])
        found.append(best)
        candidates = candidates[candidates != best]
        covariance = _conditioned(covariance, basis[best], sigma[best])
    return found


def _conditioned(covariance: np.ndarray, row: np.ndarray, variance: float) -> np.ndarray:
    """Covariance of the weights after one more measurement."""
    spread = covariance @ row
    return covariance - np.outer(spread, spread) / (row @ spread + variance)


class _Problem:
    """The samples and their kernels; `times` over their mean."""

    def __init__(self, before: Known, rows: np.ndarray, times: np.ndarray) -> None:
        self.before, self.rows, self.times = before, rows, times
        self._grams = np.stack([part[rows] @ part[rows].T for part in before.parts])
        grid = np.array(list(product(TOTALS, DETAILS if before.parts[2].shape[1] else (0.0,), NOISE)))
        self._scales = np.column_stack([np.ones(len(grid)), grid[:, 0], grid[:, 1]]) ** 2
        self._sigma = grid[:, 2]

    def without(self, place: int) -> Answer:
        """Sample `place` predicted from the others."""
        kept = np.delete(np.arange(len(self.rows)), place)
        weights, solved, _, evidence = self._inference(kept)
        mixed = np.einsum("h,hk,hn->kn", weights, self._scales, solved)
        value = self.before.centre[self.rows[place]] + np.sum(mixed * self._grams[:, place, kept])
        value = np.maximum(value, FLOOR * self.times[kept].min())
        return evidence, value, value**2, 0.0

    def posterior(self) -> Answer:
        """Mean and mean square (N,) of a measurement, over the mean of the samples."""
        weights, solved, inverse, evidence = self._inference(np.arange(len(self.rows)))
        parts, centre = self.before.parts, self.before.centre
        cross = np.hstack([part @ part[self.rows].T for part in parts])  # (N, 3n)
        own = np.stack([np.einsum("nk,nk->n", part, part) for part in parts])
        # Point h of the grid has mean = centre + cross @ slope_h; everything below is summed over h before it meets
        # the N networks.
        slope = (self._scales[:, :, None] * solved[:, None, :]).reshape(len(weights), -1)
        learned = np.einsum("h,hk,hl,hmn->kmln", weights, self._scales, self._scales, inverse, optimize=True)
        noise = weights * self._sigma**2
        rise = cross @ (weights @ slope)
        square = (weights @ self._scales) @ own - _squares(cross, learned.reshape(slope.shape[1], -1))
        square += (1 + noise.sum()) * centre**2 + 2 * centre * (rise + cross @ (noise @ slope))
        square += _squares(cross, (slope.T * (weights + noise)) @ slope)
        return evidence, centre + rise, square, float(weights @ np.log(self._sigma))

    def _inference(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Over the grid: weights (H,), K^-1 (y - m) (H, n) and K^-1 (H, n, n), K with the noise; and the logarithm of
        the evidence. Samples `kept` only.

        In rounds: noise is relative to the latency, which in the first round is the measured one, and a sample that the
        others find unlikely has more of it.
        """
        gram = np.tensordot(self._scales, self._grams[:, kept[:, None], kept], 1)
        centre, times = self.before.centre[self.rows[kept]], self.times[kept]
        rest, size, trust = times - centre, times, np.ones(len(kept))
        for turn in range(ROUNDS):
            lower = np.linalg.cholesky(gram + (self._sigma[:, None, None] * np.diag(size / np.sqrt(trust))) ** 2)
            half = np.linalg.inv(lower)
            evidence = -0.5 * ((half @ rest) ** 2).sum(axis=1)
            evidence -= np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
            weights = np.exp(evidence - evidence.max())
            total = float(evidence.max() + np.log(weights.mean()))
            weights /= weights.sum()
            inverse = np.swapaxes(half, 1, 2) @ half
            solved = inverse @ rest
            if turn == ROUNDS - 1:
                break
            size = np.maximum(centre + np.einsum("h,hmn,hn->m", weights, gram, solved), FLOOR * times.min())
            # How far the sample is from what the others predict, squared, in standard deviations of that.
            far = weights @ (solved**2 / np.diagonal(inverse, axis1=1, axis2=2))
            trust = (TAIL + 1) / (TAIL + far)
        # Student's t is a normal law of unknown precision: this is what little trust costs under its gamma prior.
        return weights, solved, inverse, total + 0.5 * TAIL * float((np.log(trust) - trust + 1).sum())


def _squares(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """x . M x of each row x."""
    return np.einsum("nk,nk->n", rows @ matrix, rows)


def _matrix(name: str, matrix: np.ndarray, size: int | None = None) -> np.ndarray:
    found = np.asarray(matrix, dtype=float)
    if found.ndim != 2 or size not in (None, len(found)) or not np.isfinite(found).all():
        rows = "one row a network" if size is None else f"{size} rows"
        raise BadInput(f"{name}: a table of finite numbers with {rows} is needed, not an array of shape {found.shape}")
    return found


def _samples(
    indices: Sequence[int] | np.ndarray, latency_ms: Sequence[float] | np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    rows, times = np.asarray(indices), np.asarray(latency_ms, dtype=float)
    if rows.shape != times.shape or rows.ndim != 1:
        raise BadInput(f"samples: {rows.shape} indices and {times.shape} latencies; one latency an index is needed")
    if len(rows) < LEAST_SAMPLES:
        raise BadInput(f"samples: {len(rows)} measured networks; a new device needs at least {LEAST_SAMPLES}")
    if rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= size:
        raise BadInput(f"samples: indices must be integers from 0 to {size - 1}")
    if len(np.unique(rows)) < len(rows):
        raise BadInput("samples: an index is there twice; give the mean of its latencies")
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise BadInput("samples: a latency is not a positive number")
    return rows.astype(np.int64), times


def _short(values: np.ndarray) -> tuple[float, ...]:
    """Six digits: a file of a third of the size."""
    return tuple(float(f"{value:.6g}") for value in values)
