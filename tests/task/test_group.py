"""What belongs together stays in one part, whoever says so and however."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.task.base import Split
from edgewright.task.group import groups_of, nearly_repeated, numbered, rooted
from edgewright.task.load import load_task
from edgewright.task.split import stratified

FILES = ["a/00001_00001.png", "a/00001_00002.png", "a/00002_00001.png", "b/00001_00001.png"]


def _tracks(classes: int, tracks: int, frames: int) -> tuple[Tensor, Tensor]:
    """Labels and groups: every class has so many tracks of so many frames."""
    labels = torch.arange(classes).repeat_interleave(tracks * frames)
    return labels, torch.arange(classes * tracks).repeat_interleave(frames)


@pytest.mark.parametrize(("share", "tracks", "frames"), [(0.1, 20, 3), (0.2, 5, 7), (0.5, 4, 2), (0.1, 2, 30)])
def test_no_group_is_in_both_and_the_share_is_kept_to_a_group(share: float, tracks: int, frames: int) -> None:
    labels, groups = _tracks(3, tracks, frames)
    kept, held = stratified(labels, share, 0, "val", groups=groups)
    assert not set(groups[kept].tolist()) & set(groups[held].tolist())
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    for count in Counter(labels[held].tolist()).values():
        assert abs(count - share * tracks * frames) <= max(frames / 2, frames - share * tracks * frames)


def test_without_groups_a_split_is_what_it_was() -> None:
    """Old runs find their val again: the rule that was there before groups, written out."""
    from edgewright.core.seed import rng

    labels = torch.tensor([0] * 31 + [1] * 2 + [2] * 11)
    random = rng(5, "split", "val")
    kept: list[int] = []
    held: list[int] = []
    for label in (0, 1, 2):
        members = (labels == label).nonzero().flatten().tolist()
        random.shuffle(members)
        count = min(max(1, round(0.2 * len(members))), len(members) - 1)
        held, kept = held + members[:count], kept + members[count:]
    random.shuffle(kept)
    random.shuffle(held)
    found = stratified(labels, 0.2, 5, "val")
    assert [one.tolist() for one in found] == [kept, held]


def test_groups_of_unequal_size_and_a_class_of_one() -> None:
    labels = torch.tensor([0] * 50 + [1] * 4)
    groups = torch.tensor([0] * 40 + [1] * 5 + [2] * 5 + [3] * 4)
    kept, held = stratified(labels, 0.1, 1, "val", groups=groups)
    assert set(groups[kept].tolist()) >= {3} and len(held)
    assert not set(groups[kept].tolist()) & set(groups[held].tolist())


@pytest.mark.parametrize(
    ("wish", "groups"),
    [
        (r"(.*)_\d+\.", ["a/00001", "a/00001", "a/00002", "b/00001"]),
        (r"^\w+/\d+", ["a/00001", "a/00001", "a/00002", "b/00001"]),
        (r"^(\w+)/(\d+)", ["a/00001", "a/00001", "a/00002", "b/00001"]),
        (r"/(\d+)_", ["00001", "00001", "00002", "00001"]),
    ],
)
def test_an_expression_names_groups(wish: str, groups: list[str]) -> None:
    assert groups_of(FILES, wish) == groups
    assert numbered(groups).tolist() == [sorted(set(groups), key=groups.index).index(one) for one in groups]


def test_a_table_names_groups_by_path_or_name(tmp_path: Path) -> None:
    table = tmp_path / "who.csv"
    table.write_text("file,group\nx.png,ann\na/y.png,ben\n./b/z.png,ann\n")
    assert groups_of(["q/x.png", "a/y.png", "b/z.png"], str(table)) == ["ann", "ben", "ann"]


def test_a_table_means_the_same_from_anywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rooted("who.csv") == str(tmp_path / "who.csv")
    assert (rooted(r"(.*)_"), rooted(None)) == (r"(.*)_", None)


@pytest.mark.parametrize(
    ("wish", "text", "words"),
    [
        ("(", None, "not a regular expression"),
        ("film", None, "not found in 4 of 4 file names, such as a/00001_00001.png"),
        ("0", None, "are of one group"),
        ("none.csv", None, "no such file"),
        ("who.csv", "name,group\n", "no column 'file'"),
        ("who.csv", "file,group\na/00001_00001.png,x\n", "no group for 3 of 4 files"),
    ],
)
def test_bad_wishes(tmp_path: Path, wish: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / wish).write_text(text)
    with pytest.raises(BadInput, match=words):
        groups_of(FILES, str(tmp_path / wish) if wish.endswith(".csv") else wish)


def test_images_by_an_expression(tmp_path: Path) -> None:
    """Each track has its own grey: no grey is in two parts."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("round", "square")):
        (tmp_path / name).mkdir()
        for track in range(10):
            for frame in range(3):
                pixels = np.full((16, 16), 10 + 20 * track + 5 * label, np.uint8)
                pixels[0, 0] = generator.integers(0, 255)
                Image.fromarray(pixels).save(tmp_path / name / f"{track:02}_{frame}.png")
    task = load_task(f"images:{tmp_path}", group=r"(.*)_\d+\.png$")
    greys = [set(part.inputs[:, 0, 8, 8].tolist()) for part in (task.train, task.val, task.test)]
    assert not greys[0] & greys[1] and not greys[0] & greys[2] and not greys[1] & greys[2]
    assert sum(len(part) for part in (task.train, task.val, task.test)) == 60


def test_films_in_a_folder_without_parts_are_seen(tmp_path: Path, capsys) -> None:
    """Test is drawn from the same films, so it is no measure of what is near by nature."""
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for film in range(12):
            pixels = generator.integers(0, 255, (16, 16))
            for frame in range(5):
                moved = np.clip(pixels + generator.normal(0, 1.5, (16, 16)), 0, 255).astype(np.uint8)
                Image.fromarray(moved).save(tmp_path / name / f"{film}_{frame}.png")
    load_task(f"images:{tmp_path}")
    assert "of val are nearly the same as a training sample: figures on val may flatter" in _said(capsys)
    load_task(f"images:{tmp_path}", group=r"(.*)_")
    assert "nearly the same" not in _said(capsys)


def _said(capsys) -> str:
    return " ".join("".join(capsys.readouterr()).split())


def _file(path: Path, **more: np.ndarray) -> str:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 255, (40, 8, 8, 3)).astype(np.uint8)
    np.savez(path, x=x, y=np.arange(40) % 2, **more)  # pyright: ignore[reportArgumentType]
    return f"arrays:{path}"


@pytest.mark.parametrize("names", [False, True])
def test_arrays_by_an_array(tmp_path: Path, names: bool) -> None:
    groups = np.arange(40) // 4
    source = _file(tmp_path / "a.npz", group=groups.astype(str) if names else groups)
    task = load_task(source)
    rows = {bytes(one.numpy()): index for index, one in enumerate(load_all(tmp_path / "a.npz"))}
    parts = [
        {groups[rows[bytes(x.contiguous().numpy())]] for x in part.inputs} for part in (task.train, task.val, task.test)
    ]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def load_all(path: Path) -> Tensor:
    with np.load(path) as file:
        return torch.from_numpy(file["x"]).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("groups", [np.zeros(39, int), np.zeros((40, 1), int), np.zeros(40)])
def test_arrays_of_another_shape(tmp_path: Path, groups: np.ndarray) -> None:
    with pytest.raises(BadInput, match="numbers or names, one for each sample"):
        load_task(_file(tmp_path / "a.npz", group=groups))


@pytest.mark.parametrize("source", ["digits", "arrays"])
def test_what_has_no_file_names(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadInput, match="no file names"):
        load_task(_file(tmp_path / "a.npz") if source == "arrays" else source, group="x")


def test_frames_of_one_film_are_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    films = torch.randint(0, 255, (30, 3, 20, 24), generator=generator).float()
    frames = films.repeat_interleave(4, 0) + torch.randn(120, 3, 20, 24, generator=generator)
    known, looked_at = (Split(frames[which], torch.zeros(60)) for which in (slice(0, None, 2), slice(1, None, 2)))
    others = Split(torch.randint(0, 255, (60, 3, 20, 24), generator=generator), torch.zeros(60))
    assert [one.startswith("100 % of val are nearly") for one in nearly_repeated(known, looked_at, None)] == [True]
    assert len(list(nearly_repeated(known, looked_at, others))) == 1  # test is not so near
    assert list(nearly_repeated(known, looked_at, looked_at)) == []  # they are alike by nature
    assert list(nearly_repeated(known, others, None)) == []
    black = Split(torch.zeros(60, 3, 20, 24), torch.zeros(60))
    assert list(nearly_repeated(black, others, None)) == []
