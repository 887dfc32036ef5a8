"""Files below folders: what is followed, what is left out, and that it is counted."""

import os
from pathlib import Path

import pytest

from edgewright.core.errors import BadInput
from edgewright.task.finding import LeftOut, count_beside, files_below, part_of, parts_in


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path


@pytest.mark.parametrize(
    ("name", "part"),
    [("train", "train"), ("Training", "train"), ("TRAIN", "train"), ("valid", "val"), ("Validation", "val"),
     ("dev", "val"), ("Val", "val"), ("TESTING", "test"), ("Test", "test"), ("trains", None), ("testbench", None)],
)  # fmt: skip
def test_the_words_for_parts_are_known_in_any_case(name, part):
    assert part_of(name) == part


def test_two_folders_of_one_part_are_refused_where_there_is_one_to_train_on(tmp_path):
    for name in ("val", "Valid", "car"):
        (tmp_path / name).mkdir()
    assert parts_in(tmp_path) == {"val": tmp_path / "Valid"}  # classes that are called so
    (tmp_path / "Train").mkdir()
    with pytest.raises(BadInput, match="Valid/ and val/ both say 'val'"):
        parts_in(tmp_path)


def test_links_are_followed_once_and_loops_held(tmp_path):
    here, beside = tmp_path / "set" / "cat", tmp_path / "elsewhere"
    one, deep, other = write(here / "b.png"), write(here / "inner" / "a.png"), write(beside / "c.png")
    write(tmp_path / "set" / "dog" / "not a cat.png")
    (here / "far").symlink_to(beside)
    (here / "file.png").symlink_to(other)
    (here / "up").symlink_to("..")  # the folder of all classes
    (here / "itself").symlink_to(".")
    (beside / "back").symlink_to(here / "inner")
    left_out = LeftOut()
    found = files_below(here, left_out)
    assert found == sorted([one, deep, here / "far" / "c.png", here / "file.png"]) or found == sorted(
        [one, here / "far" / "back" / "a.png", here / "far" / "c.png", here / "file.png"]
    )
    assert str(left_out) == "3 files: 3 behind links to folders that are read already"


def test_hidden_names_and_pipes_are_left_out_and_broken_links_are_files(tmp_path):
    write(tmp_path / "a.png"), write(tmp_path / ".DS_Store"), write(tmp_path / ".git" / "x.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    left_out = LeftOut()
    assert [path.name for path in files_below(tmp_path, left_out)] == ["a.png", "gone.png"]
    assert dict(left_out.reasons) == {"hidden": 2, "neither files nor folders": 1}


def test_what_lies_beside_is_counted_file_by_file(tmp_path):
    write(tmp_path / "train" / "a.png"), write(tmp_path / "extra" / "b.png"), write(tmp_path / "extra" / "c" / "d.png")
    write(tmp_path / "README.md"), write(tmp_path / ".hidden")
    (tmp_path / "empty").mkdir()
    left_out = LeftOut()
    count_beside(tmp_path, {tmp_path / "train"}, left_out)
    assert str(left_out) == "4 files: 3 beside the folders that are read, 1 hidden" or dict(left_out.reasons) == {
        "beside the folders that are read": 3,
        "hidden": 1,
    }


def test_one_line_by_reason_with_the_commonest_endings(capsys):
    left_out = LeftOut()
    left_out.tell("nothing")
    assert (str(left_out), capsys.readouterr().err) == ("", "")
    left_out.stranger(Path("a"))
    assert str(left_out) == "1 file: 1 not an image (no ending)"
    for name in ("b.TXT", "c.txt", "d.csv", "e.json", "f.xml", "g.md"):
        left_out.stranger(Path(name))
    left_out.add("hidden", 1200)
    left_out.tell("images:set")
    told = capsys.readouterr().err
    assert told.startswith("images:set: left out 1,207 files: 7 not images (.txt, ")
    assert told.endswith(", ...), 1,200 hidden\n")
    assert told.count("\n") == 1
