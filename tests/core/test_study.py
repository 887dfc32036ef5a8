import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from edgewright.core.cost import cost
from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.study import Candidate, Study


def candidate(index: int) -> Candidate:
    costs = {"macs": cost("macs", 1000 + index, "analytic"), "latency": cost("latency", 0.5, "table")}
    return Candidate(
        key=f"k{index}", architecture={"space": "toy", "width": index}, costs=costs, scores={"zico": index / 7}
    )


def test_candidates_come_back_as_recorded_and_in_order(tmp_path):
    with Study(tmp_path / "study.db") as study:
        study.record(candidate(3))
        study.record(candidate(1), candidate(2))
    with Study(tmp_path / "study.db") as again:
        assert again.candidates() == [candidate(3), candidate(1), candidate(2)]


def test_minus_infinity_survives(tmp_path):
    with Study(tmp_path / "study.db") as study:
        study.record(candidate(1).model_copy(update={"scores": {"zico": float("-inf")}}))
        assert study.candidates()[0].scores == {"zico": float("-inf")}


def test_recording_twice_is_an_error_and_keeps_the_first(tmp_path):
    with Study(tmp_path / "study.db") as study:
        study.record(candidate(1))
        with pytest.raises(EdgewrightError, match="twice"):
            study.record(candidate(2), candidate(1))
        assert [c.key for c in study.candidates()] == ["k1"]


def test_notes_and_epochs(tmp_path):
    with Study(tmp_path / "study.db") as study:
        study.note("seconds:search", 1.5)
        study.note("seconds:train", 2)
        study.note("seconds:search", 2.5)
        study.record_epoch("k", "final", 1, {"val": 3})
        study.record_epoch("k", "final", 0, {"val": 2})
        study.record_epoch("k", "rung-0", 0, {"val": 1})
        assert study.notes("seconds:") == {"search": 2.5, "train": 2}
        assert study.read_note("absent", 7) == 7
        assert study.epochs("k", "final") == [{"val": 2}, {"val": 3}]


def test_an_interruption_within_a_write_leaves_the_study_usable(tmp_path):
    def interrupted():
        yield ("half", "1")
        raise KeyboardInterrupt

    with Study(tmp_path / "study.db") as study:
        with pytest.raises(KeyboardInterrupt):
            study._write("INSERT INTO notes VALUES (?, ?)", interrupted())
        study.note("after", 1)
        assert study.notes("") == {"after": 1}


def test_a_study_that_cannot_be_written_is_one_sentence(tmp_path):
    with Study(tmp_path / "study.db") as study:
        study._db.execute("PRAGMA query_only = ON")
        with pytest.raises(EdgewrightError, match="cannot be written"):
            study.note("a", 1)


def test_what_is_not_a_study_is_refused(tmp_path):
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(BadInput, match="not a readable study"):
        Study(tmp_path / "study.db")


def test_a_later_schema_is_refused(tmp_path):
    db = sqlite3.connect(tmp_path / "study.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BadInput, match="schema 99"):
        Study(tmp_path / "study.db")


def test_a_study_that_cannot_be_opened_is_not_called_damaged(tmp_path):
    with pytest.raises(EdgewrightError, match="cannot be opened") as told:
        Study(tmp_path / "nowhere" / "study.db")
    assert "put a copy back" not in str(told.value)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_damage_further_in_is_one_sentence_that_names_the_file(tmp_path, place):
    path = tmp_path / "study.db"
    with Study(path) as study:
        study.record(*(candidate(index) for index in range(400)))
        study.note("a", list(range(4000)))
        study.record_epoch("k", "final", 0, {"val": 2})
    data = bytearray(path.read_bytes())
    start = int(place * len(data)) // 4096 * 4096
    data[start : start + 8192] = b"\xa5" * 8192
    path.write_bytes(bytes(data))
    with pytest.raises(EdgewrightError) as told, Study(path) as study:
        study.candidates()
        study.notes("")
        study.epochs("k", "final")
    assert str(told.value).startswith(f"{path}: ")
    assert "\n" not in str(told.value)


def test_a_row_that_no_run_wrote_is_one_sentence(tmp_path):
    with Study(tmp_path / "study.db") as study:
        study._write("INSERT INTO notes VALUES (?, ?)", [("a", "{half")])
        study._write("INSERT INTO candidates (key, architecture, costs, scores) VALUES (?, ?, ?, ?)", [("k", *"123")])
        for read in (lambda: study.read_note("a"), lambda: study.notes(""), study.candidates):
            with pytest.raises(BadInput, match=r"study\.db: damaged"):
                read()


WRITER = """
import sys
from pathlib import Path
from edgewright.core.study import Candidate, Study
study = Study(Path(sys.argv[1]))
for index in range(100_000):
    study.record(Candidate(key=str(index), architecture={}, costs={}, scores={"s": index}))
    print(index, flush=True)
"""


@pytest.mark.parametrize("delay", [0.02, 0.11, 0.3])
def test_nothing_acknowledged_is_lost_to_a_kill(tmp_path, delay):
    path = tmp_path / "study.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = 1 + sum(line.endswith("\n") for line in writer.stdout)
    with Study(path) as study:
        keys = [c.key for c in study.candidates()]
    assert keys == [str(i) for i in range(len(keys))]
    assert acknowledged <= len(keys) <= acknowledged + 1
