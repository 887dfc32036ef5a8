"""The durable record of a run: every candidate, every epoch, every stage, in one SQLite file.

Write-ahead logging with full synchronisation: what `record` returned from survives a killed process and a power cut.
A damaged file is one sentence, whenever it shows. Values are strict JSON (`core.data.to_record`).
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from edgewright.core.cost import Cost
from edgewright.core.data import Frozen, from_record, to_record
from edgewright.core.errors import BadInput, EdgewrightError

SCHEMA = 1
TABLES = """
CREATE TABLE IF NOT EXISTS candidates (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL,
    architecture TEXT NOT NULL, costs TEXT NOT NULL, scores TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS epochs (
    key TEXT NOT NULL, phase TEXT NOT NULL, epoch INTEGER NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (key, phase, epoch)
);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Candidate(Frozen):
    """An architecture that was costed and scored. `key` is the architecture's digest; higher scores are better."""

    key: str
    architecture: dict[str, Any]
    costs: dict[str, Cost]
    scores: dict[str, float]


class Study:
    """Open (or make) the study at `path`; one writer, any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise BadInput(f"{path}: a study of schema {version}; this version of edgewright reads schema {SCHEMA}")
            self._db.executescript(TABLES)
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # the file was not even looked into
                raise EdgewrightError(f"{path}: cannot be opened ({error}); see to the disk and resume") from None
            raise BadInput(f"{path}: not a readable study ({error}); put a copy back, or start a new run") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def _write(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(sql, rows)
            self._db.execute("COMMIT")
        except BaseException as error:
            # Ctrl-C as well: what is written on the way out must not meet an open transaction.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                raise EdgewrightError(f"{self.path}: a candidate was recorded twice ({error})") from None
            if isinstance(error, sqlite3.Error):
                cause = "the disk is full" if _is_full(error) else f"cannot be written ({error})"
                raise EdgewrightError(f"{self.path}: {cause}; see to the disk and resume") from None
            raise

    def _read(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """All rows. SQLite opens a file that is damaged further in, and says so only when it gets there."""
        with self._whole():
            return self._db.execute(sql, parameters).fetchall()

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, ValidationError, ValueError, TypeError, AttributeError) as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise EdgewrightError(f"{self.path}: another process holds it; try again") from None
            cause = str(error) if isinstance(error, sqlite3.DatabaseError) else "it holds what no run wrote"
            raise BadInput(f"{self.path}: damaged ({cause}); put a copy back, or start a new run") from None

    def record(self, *candidates: Candidate) -> None:
        """Keep candidates for good, in one transaction; recording one twice is an error."""
        rows = [
            (
                c.key,
                to_record(c.architecture),
                to_record({k: v.model_dump(exclude_none=True) for k, v in c.costs.items()}),
                to_record(c.scores),
            )
            for c in candidates
        ]
        self._write("INSERT INTO candidates (key, architecture, costs, scores) VALUES (?, ?, ?, ?)", rows)

    def candidates(self) -> list[Candidate]:
        """All candidates, in the order they were recorded."""
        rows = self._read("SELECT key, architecture, costs, scores FROM candidates ORDER BY id")
        with self._whole():
            return [
                Candidate(
                    key=key,
                    architecture=from_record(architecture),
                    costs=from_record(costs),
                    scores=from_record(scores),
                )
                for key, architecture, costs, scores in rows
            ]

    def record_epoch(self, key: str, phase: str, epoch: int, record: dict[str, Any]) -> None:
        """Keep the figures of one epoch of a candidate's training; `phase` says which training (rung-0, final, ...)."""
        self._write("INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?)", [(key, phase, epoch, to_record(record))])

    def epochs(self, key: str, phase: str) -> list[dict[str, Any]]:
        rows = self._read("SELECT record FROM epochs WHERE key = ? AND phase = ? ORDER BY epoch", (key, phase))
        with self._whole():
            return [from_record(record) for (record,) in rows]

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON value under a name; the last one wins."""
        self._write("INSERT OR REPLACE INTO notes VALUES (?, ?)", [(name, to_record(value))])

    def read_note(self, name: str, default: Any = None) -> Any:
        rows = self._read("SELECT value FROM notes WHERE name = ?", (name,))
        with self._whole():
            return from_record(rows[0][0]) if rows else default

    def notes(self, prefix: str) -> dict[str, Any]:
        """All notes whose name starts with `prefix`, by the rest of the name."""
        rows = self._read("SELECT name, value FROM notes WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
        with self._whole():
            return {name[len(prefix) :]: from_record(value) for name, value in rows}


def _is_full(error: sqlite3.Error) -> bool:
    return "full" in str(error)
