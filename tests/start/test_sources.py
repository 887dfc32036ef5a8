"""Where starts come from: runs, files and folders, the hub's cache; and what is no start, in one sentence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.start.resolve import at_hand, find_starts, named, open_start, rooted

NAME = "mobilenetv3_small_050"


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    timm = pytest.importorskip("timm", reason="the extra `timm` is not installed")
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("zoo") / f"{NAME}.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return path


def cached(hub: Path, name: str, weights: Path) -> Path:
    """Weights as the hub's library lays them down."""
    place = hub / f"models--timm--{name}" / "snapshots" / "0123"
    place.mkdir(parents=True)
    return Path(shutil.copy(weights, place / "model.safetensors"))


def test_a_run_is_a_start_with_its_weights(digits_run: RunFolder) -> None:
    (start,) = find_starts(str(digits_run.path))
    assert (start.source, start.trained_on, start.input) == (str(digits_run.path), "digits", "1x8x8")
    assert start.sha256 == digits_run.read_result().files["model.safetensors"]
    own = load_file(digits_run.model)
    found = open_start(start).network.state_dict()
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_a_folder_gives_its_runs_and_what_is_broken_is_left_out(
    digits_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(digits_run.path, tmp_path / "runs" / "good")
    shutil.copytree(digits_run.path, tmp_path / "runs" / "altered")
    altered = tmp_path / "runs" / "altered" / "model.safetensors"
    altered.write_bytes(altered.read_bytes()[:-1])
    (tmp_path / "runs" / "notes.txt").write_text("nothing")
    (start,) = find_starts(str(tmp_path / "runs"))
    assert start.name == "good"
    assert f"no start: {altered}: altered since the run" in capsys.readouterr().err
    assert named(start) == str(tmp_path / "runs" / "good")


def test_the_licence_of_what_a_run_was_made_of_stays_with_it(digits_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(digits_run.path, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    result["start"] = {"source": "timm:somebody", "sha256": "0" * 64, "licence": "cc-by-nc-4.0", "kept": {}}
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    (start,) = find_starts(str(tmp_path / "run"))
    assert start.licence == "cc-by-nc-4.0"
    assert not start.commercial


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", "fair-noncommercial-research-license", "apple-amlr"])
def test_licences_that_forbid_commercial_use(digits_run: RunFolder, licence: str) -> None:
    (start,) = find_starts(str(digits_run.path))
    assert start.commercial
    assert not start.model_copy(update={"licence": licence}).commercial


def test_one_and_the_same_is_refused_and_at_hand_once(digits_run: RunFolder, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(digits_run.path, tmp_path / "runs" / name)
    with pytest.raises(BadInput, match=r"two starts are the same: .*one .*two.*; name each once"):
        find_starts(f"{tmp_path / 'runs' / 'one'}, {tmp_path / 'runs' / 'two'}")
    assert [start.name for start in at_hand(tmp_path / "runs", tmp_path / "runs")] == ["one"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nowhere", "nowhere: no start; give timm:NAME, torchvision:NAME, a run, NAME.safetensors"),
        ("empty", "empty: holds neither a finished run nor a NAME.safetensors of a network of timm"),
        ("begun", "begun: this run has not finished; edgewright design --resume"),
        (" , ", "names nothing"),
        ("net.pth", "net.pth: a pickle, .* convert it once: python -c .*save_file.*net.safetensors"),
        ("pickles", "holds neither .*net.bin: a pickle"),
    ],
)
def test_what_is_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickles").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "plan.yaml").write_text("task: digits\nbudget: {macs: 1.0e+6}\n")
    for file in (tmp_path / "net.pth", tmp_path / "pickles" / "net.bin"):
        file.write_bytes(b"PK\x03\x04")
    with pytest.raises(BadInput, match=words) as caught:
        find_starts(text)
    assert "\n" not in str(caught.value)


def test_weights_belong_to_one_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--weights belongs to one start that is named"):
        find_starts("timm:resnet18,timm:resnet34", "w.safetensors")
    with pytest.raises(BadInput, match="--weights belongs to one start that is named"):
        find_starts(str(tmp_path), "w.safetensors")


def test_folders_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rooted("timm:resnet18, auto, autos") == f"timm:resnet18,auto,{tmp_path / 'autos'}"


# ---- timm ----


@pytest.mark.parametrize("cut", [0, 5, 3000, -1])
def test_half_a_download(weights: Path, tmp_path: Path, cut: int) -> None:
    half = tmp_path / f"{NAME}.safetensors"
    half.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(BadInput, match=r"safetensors: not a safetensors file, or half of one .*; fetch it again"):
        find_starts(f"timm:{NAME}", str(half))


@pytest.mark.parametrize("first", [b"PK\x03\x04...", b"\x80\x02\x8a\nl..."])  # of torch.save, now and before
def test_a_pickle_by_another_name(weights: Path, tmp_path: Path, first: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(first)
    with pytest.raises(BadInput, match="a pickle, which could run a stranger's code"):
        find_starts(f"timm:{NAME}", str(tmp_path / "w.safetensors"))


def test_weights_of_another_network_name_the_tensors(weights: Path) -> None:
    (start,) = find_starts("timm:mobilenetv3_small_075", str(weights))
    with pytest.raises(BadInput, match=r"not the weights of mobilenetv3_small_075 \(.*blocks\.\S+ .* \(and \d+ more"):
        open_start(start)


def test_a_file_or_a_folder_of_networks(weights: Path) -> None:
    for text in (str(weights), str(weights.parent)):
        (start,) = find_starts(text)
        assert (start.source, start.weights, start.trained_on) == (f"timm:{NAME}", str(weights), "ImageNet-1k")
    assert named(start) == str(weights)
    model = open_start(start).network
    assert torch.equal(model.get_submodule("conv_stem").weight, load_file(weights)["conv_stem.weight"])


def test_the_hubs_cache_gives_exactly_the_weights_that_are_named(weights: Path, empty_hub: Path) -> None:
    with pytest.raises(BadInput, match=r"are not on this machine; .*--weights FILE.safetensors.*--download"):
        find_starts(f"timm:{NAME}")
    cached(empty_hub, "resnet18.fb_swsl_ig1b_ft_in1k", weights)  # of another licence than resnet18.a1_in1k
    with pytest.raises(BadInput, match="are not on this machine"):
        find_starts("timm:resnet18")
    file = cached(empty_hub, f"{NAME}.lamb_in1k", weights)
    (start,) = find_starts(f"timm:{NAME}")
    assert start.weights == str(file)
    assert {one.source: one.licence for one in at_hand()} == {f"timm:{NAME}.lamb_in1k": "apache-2.0"}
    (again,) = find_starts(f"timm:{NAME}.lamb_in1k")
    assert named(again) == again.source


def test_a_folder_as_the_hub_keeps_it(weights: Path, tmp_path: Path) -> None:
    place = tmp_path / "zoo" / "some"
    place.mkdir(parents=True)
    shutil.copy(weights, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps({"architecture": NAME, "pretrained_cfg": {"tag": "lamb_in1k"}}))
    (start,) = find_starts(str(tmp_path / "zoo"))
    assert start.source == f"timm:{NAME}.lamb_in1k"
    assert named(start) == str(place)
    shutil.copy(weights, tmp_path / "zoo" / "resnet18.safetensors")  # its weights are another's, and so they are told
    with pytest.raises(BadInput, match="two starts are the same"):
        find_starts(str(tmp_path / "zoo"))
