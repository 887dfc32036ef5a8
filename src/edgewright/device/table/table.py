"""Latency of networks that were never built: a table of measured operators, calibrated with whole networks.

The table holds pieces (an operator with what is fused into it) as the runtime's profiler times them *inside* whole
networks. A block timed alone would be charged for changes of layout at its borders that it does not pay in its place,
and timing thousands of different blocks would take minutes; pieces repeat, so a few dozen networks hold most of them.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PrivateAttr

from edgewright.core.cost import How
from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.progress import say
from edgewright.device.board.target import Law
from edgewright.device.table.interpolate import LEAST_US, Family
from edgewright.device.table.pieces import cut, read_piece
from edgewright.device.table.profiled import PieceTime
from edgewright.ir.graph import Graph

Blocks = Sequence[tuple[str, Graph]]
KEPT = 5  # observations of one piece that are kept; their median counts
TYPICAL_US = 2.0  # for a kind of operator that no measured network had
SCHEMA = 1


class LatencyTable:
    """Measured pieces on disk, by `device` (`Device.key`, a text that says all that latencies depend on).

    Several processes may read and write at once (SQLite, write-ahead log). A file that is not a table is moved aside,
    with one line to say so: it is a cache, and is measured again.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.path, self.device = path, device
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as db:
                self._prepare(db)
        except OSError as error:
            raise EdgewrightError(
                f"{path}: the latency table cannot be kept there ({error.strerror}); set EDGEWRIGHT_CACHE to a folder "
                "that can be written"
            ) from None
        except sqlite3.OperationalError as error:
            raise EdgewrightError(f"{path}: the latency table cannot be opened ({error})") from None
        except sqlite3.DatabaseError:
            self._set_aside()

    def read(self) -> dict[str, tuple[float, float]]:
        """Microseconds as profiled and number of runtime nodes by piece key: medians of what was observed."""
        with self._open() as db:
            rows = db.execute("SELECT key, raw_us, nodes FROM pieces WHERE device = ?", (self.device,)).fetchall()
        seen: dict[str, list[tuple[float, float]]] = {}
        for key, raw_us, nodes in rows:
            seen.setdefault(key, []).append((raw_us, nodes))
        return {key: _middle(observations) for key, observations in seen.items() if _readable(key)}

    def add(self, times: Iterable[PieceTime]) -> None:
        """Keep observations for good; of each piece the latest few are kept."""
        now = time.time()
        rows = [(self.device, item.piece.key, item.raw_us, item.nodes, now) for item in times]
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO pieces VALUES (?, ?, ?, ?, ?)", rows)
            db.executemany(
                "DELETE FROM pieces WHERE device = ? AND key = ? AND rowid NOT IN (SELECT rowid FROM pieces "
                "WHERE device = ? AND key = ? ORDER BY rowid DESC LIMIT ?)",
                {(self.device, row[1], self.device, row[1], KEPT) for row in rows},
            )
            db.execute("COMMIT")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            yield db
        finally:
            db.close()

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA):
            raise BadInput(f"{self.path}: a latency table of schema {version}, not {SCHEMA}; remove it")
        db.execute(
            "CREATE TABLE IF NOT EXISTS pieces (device TEXT NOT NULL, key TEXT NOT NULL, raw_us REAL NOT NULL, "
            "nodes REAL NOT NULL, at REAL NOT NULL)"
        )
        db.execute("CREATE INDEX IF NOT EXISTS by_key ON pieces (device, key)")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("SELECT device, key, raw_us, nodes, at FROM pieces LIMIT 1")

    def _set_aside(self) -> None:
        broken = self.path.with_name(self.path.name + f".broken-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError):
            self.path.replace(broken)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        say(f"{self.path}: not a readable latency table; moved to {broken.name} and measured again")
        with self._open() as db:
            self._prepare(db)


def _readable(key: str) -> bool:
    try:
        read_piece(key)
    except ValueError:
        return False
    return True


def _middle(observations: list[tuple[float, float]]) -> tuple[float, float]:
    raw, nodes = np.median(np.array(observations, dtype=float), axis=0)
    return float(raw), float(nodes)


class Calibration(Frozen):
    """From what the profiler sees to what a user sees, by least squares on relative errors of whole networks.

        latency_us = base_us + scale * (microseconds as profiled) - node_us * (number of runtime nodes)

    node_us is the profiler's own cost per node, less what the runtime spends between nodes.   interpolated: what pieces
    that were never measured take of what their kin says: fitted to networks left out, as on some processors (AVX-512)
    it is a fifth more.
    """

    base_us: float
    scale: float
    node_us: float
    interpolated: float = 1.0

    def net_us(self, raw_us: float, nodes: float) -> float:
        """What a piece adds to the latency."""
        return max(self.scale * raw_us - self.node_us * nodes, LEAST_US)


class Check(Frozen):
    """How the model predicts networks that it has not seen: each calibration network left out in turn, with the table
    entries that only it has."""

    networks: int
    median_error: float
    rank_correlation: float | None
    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]


class LatencyModel(Frozen):
    """Predicts latency (ms, batch 1) from blocks; keeps its own table entries: a stored model predicts the same.

    A piece in the table counts as measured there; any other is interpolated from its family. `check` tells how good
    that is on this device. law: of a device that is not here, in place of all that.
    """

    device: dict[str, Any]
    calibration: Calibration
    pieces: dict[str, tuple[float, float]]
    families: dict[str, Family]
    check: Check
    seconds: float
    law: Law | None = None

    _known: dict[Graph, float] = PrivateAttr(default_factory=dict)
    _piece_us: dict[Any, float] = PrivateAttr(default_factory=dict)

    def predict(self, blocks: Blocks) -> float:
        """Latency of the network made of `blocks`, ms."""
        return (self.calibration.base_us + sum(self._block_us(graph) for _, graph in blocks)) / 1e3

    def shares(self, blocks: Blocks) -> list[float]:
        """Each block's part of the predicted latency, ms; they sum to the prediction, the fixed part spread evenly by
        size."""
        parts = [self._block_us(graph) for _, graph in blocks]
        rise = self.predict(blocks) / (sum(parts) / 1e3) if parts else 1.0
        return [part / 1e3 * rise for part in parts]

    def coverage(self, blocks: Blocks) -> float:
        """The share of the network's pieces that were measured; the others are interpolated."""
        keys = [piece.key for _, graph in blocks for piece in cut(graph)[0]]
        return sum(key in self.pieces for key in keys) / max(1, len(keys))

    def _block_us(self, graph: Graph) -> float:
        known = self._known.get(graph)
        if known is None:
            known = self._known[graph] = sum(self._of_piece(piece) for piece in cut(graph)[0])
        return known

    def _of_piece(self, piece) -> float:
        known = self._piece_us.get(piece)
        if known is None:
            known = self._piece_us[piece] = self._ask(piece)
        return known

    def _ask(self, piece) -> float:
        if self.law is not None:
            return self.law.piece_us(piece)
        return piece_us(piece.key, self.pieces, self.families, self.calibration)

    @property
    def how(self) -> How:
        """How its predictions are obtained."""
        return "table" if self.law is None else "law"


def piece_us(
    key: str, pieces: Mapping[str, tuple[float, float]], families: Mapping[str, Family], calibration: Calibration
) -> float:
    """Microseconds that a piece adds: from the table, else interpolated, else a typical small operator's."""
    if key in pieces:
        return calibration.net_us(*pieces[key])
    piece = read_piece(key)
    family = families.get(piece.family)
    return calibration.interpolated * (TYPICAL_US if family is None else family.predict_us(piece))
