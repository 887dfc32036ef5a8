from pathlib import Path

import pytest

from edgewright.task.assemble import without_folders
from edgewright.task.load import absolute


def test_places_are_named_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/data/me")
    assert absolute("images:flowers/") == f"images:{tmp_path}/flowers"
    assert absolute("arrays:a/x.npz") == f"arrays:{tmp_path}/a/x.npz"
    assert absolute("arrays:~/x.npz") == "arrays:/data/me/x.npz"
    once = absolute("images:a:b")  # a folder with a colon in its name
    assert once == f"images:{tmp_path}/a:b"
    monkeypatch.chdir(Path("/"))
    assert absolute(once) == once


@pytest.mark.parametrize("source", ["digits", "dataset", "nonsense", "images:", "unknown:x"])
def test_what_names_no_place_stays(source):
    assert absolute(source) == source


def test_a_source_is_told_without_its_folders():
    assert without_folders("images:/data/me/flowers") == "images:flowers"
    assert without_folders("arrays:x.npz") == "arrays:x.npz"
    assert without_folders("digits") == "digits"
