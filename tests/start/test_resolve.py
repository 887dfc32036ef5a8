"""What people write for a start, and what is found in folders."""

import json
from pathlib import Path

import pytest
from tests.cli.commands import edgewright

from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.start.resolve import at_hand, find_starts, open_start, rooted


def test_a_run_is_a_start_with_its_own_normalisation(digits_run: RunFolder) -> None:
    (start,) = find_starts(str(digits_run.path))
    result = json.loads((digits_run.path / "result.json").read_text())
    assert start.sha256 == result["files"]["model.safetensors"]
    opened = open_start(start)
    assert sum(p.numel() for p in opened.network.parameters()) == sum(p.numel() for p in opened.make().parameters())
    assert max(start.mean) <= 1.0


def test_a_folder_of_runs_is_searched_and_equal_weights_are_told_once(digits_run: RunFolder) -> None:
    found = list(at_hand(digits_run.path.parent, digits_run.path.parent))
    assert str(digits_run.path) in [one.source for one in found]
    assert len({one.digest for one in found}) == len(found)


def test_what_is_no_start_is_refused_in_words(tmp_path: Path, digits_run: RunFolder) -> None:
    for text, words in (
        ("nowhere", "no start; give timm:NAME, torchvision:NAME"),
        (str(tmp_path), "holds neither a finished run nor a NAME.safetensors"),
        (f"{digits_run.path},{digits_run.path}", "two starts are the same"),
    ):
        with pytest.raises(BadInput, match=words):
            find_starts(text)
    with pytest.raises(BadInput, match="--weights belongs to one start that is named"):
        find_starts(str(digits_run.path), weights="w.safetensors")


def test_folders_are_named_from_the_root_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rooted("timm:resnet18, auto, runs/a") == f"timm:resnet18,auto,{tmp_path / 'runs/a'}"


def test_the_command_lists_them(digits_run: RunFolder) -> None:
    told = json.loads(edgewright("starts", str(digits_run.path.parent), "--json").stdout)
    (row,) = [one for one in told if one["source"] == str(digits_run.path)]
    assert set(row) == {"name", "source", "licence", "trained_on", "input", "sha256"}
    assert row["input"].count("x") == 2
