"""timm's networks with the user's weights. Where timm is not installed, only its absence is tested."""

import builtins
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgewright.core.errors import BadInput, MissingExtra
from edgewright.model.timm_model import timm_network

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    timm = pytest.importorskip("timm", reason="the extra `timm` is not installed")
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("timm") / "w.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return path


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments, **options):
        if name == "timm":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"timm is not installed: pip install 'edgewright\[timm\]'"):
        timm_network(NAME, None)


def test_weights_are_those_of_the_file(weights: Path) -> None:
    import timm  # pyright: ignore[reportMissingImports]

    model, source = timm_network(NAME, weights)
    torch.manual_seed(1)
    expected = timm.create_model(NAME).eval()
    x = torch.rand(2, 3, 40, 56)
    assert torch.equal(model(x), expected(x))
    assert not model.training
    assert source["input_size"] == (3, 224, 224) and len(source["mean"]) == len(source["std"]) == 3


def test_a_file_may_lack_counters_hold_halves_and_have_another_head(weights: Path, tmp_path: Path) -> None:
    import timm  # pyright: ignore[reportMissingImports]

    state = timm.create_model(NAME, num_classes=6).state_dict()
    save_file({k: v.half() for k, v in state.items() if "num_batches" not in k}, tmp_path / "h.safetensors")
    model, _ = timm_network(NAME, tmp_path / "h.safetensors")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 6)
    assert torch.equal(model.get_submodule("conv_stem").weight, state["conv_stem.weight"].half().float())


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mobilenetv3_smal_050", "did you mean 'mobilenetv3_small_050'"),
        ("hf-hub:somebody/something", "timm has no network"),
        ("zzzzzzzz", "timm.list_models"),
    ],
)
def test_an_unknown_name(name: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        timm_network(name, None)


@pytest.mark.parametrize("fault", ["missing", "not safetensors", "another network", "another width", "a name too many"])
def test_a_file_that_does_not_fit(weights: Path, tmp_path: Path, fault: str) -> None:
    import timm  # pyright: ignore[reportMissingImports]

    path = tmp_path / "bad.safetensors"
    state = timm.create_model(NAME).state_dict()
    if fault == "not safetensors":
        path.write_bytes(weights.read_bytes()[:1000])
    elif fault == "another network":
        save_file(timm.create_model("resnet18").state_dict(), path)
    elif fault == "another width":
        save_file(timm.create_model("mobilenetv3_small_075").state_dict(), path)
    elif fault == "a name too many":
        save_file({**state, "extra.weight": torch.zeros(3)}, path)
    words = {
        "missing": "no such file",
        "not safetensors": "not a safetensors file",
        "another network": f"not the weights of {NAME} \\(the file has no conv_stem.weight \\(and",
        "another width": f"not the weights of {NAME} \\(.* is \\(.* in the network",
        "a name too many": "the network has no extra.weight",
    }
    with pytest.raises(BadInput, match=words[fault]) as caught:
        timm_network(NAME, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
