import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.core.tensors import sides
from edgewright.export.load import load_model
from edgewright.export.predict import _unlike, lines, predict
from edgewright.task.base import TaskSpec, normalise
from edgewright.task.image_files import read_images
from edgewright.task.kinds.classification import Classification


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.png", "a.png", "inner/c.png"):
        Image.fromarray(random.integers(0, 256, (11, 17), dtype=np.uint8)).save(folder / name)
    return folder


def test_predictions_are_those_of_the_pytorch_network(made_run, images):
    found = predict(made_run, [images / "b.png", images])
    assert [entry["file"] for entry in found] == [
        str(images / name) for name in ("b.png", "a.png", "b.png", "inner/c.png")
    ]
    result = RunFolder(made_run).read_result()
    spec = TaskSpec.parse(result.task, "result")
    inputs = normalise(read_images([images / "b.png", images], spec), spec, sides(result.architecture["resolution"]))
    with torch.no_grad():
        expected = load_model(made_run)(inputs).softmax(1)
    for entry, row in zip(found, expected, strict=True):
        best = row.topk(5)
        assert [ranked["class"] for ranked in entry["top"]] == [spec.names[i] for i in best.indices]
        assert [ranked["probability"] for ranked in entry["top"]] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert (entry["class"], entry["probability"]) == (entry["top"][0]["class"], entry["top"][0]["probability"])
    told = lines(made_run, found)
    assert told == [f"{entry['file']}\t{entry['class']}\t{entry['probability']:.4f}" for entry in found]


def test_arrays_say_what_the_same_images_do(made_run, tmp_path):
    """Of x, and of the test part, one entry a sample."""
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for index, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{index}.png")
    np.savez(tmp_path / "new.npz", x=pixels)
    np.savez(tmp_path / "parts.npz", x_test=pixels[1:], y_test=np.array([4, 5]), x_train=pixels, y_train=np.arange(3))
    files = predict(made_run, sorted(tmp_path.glob("*.png")))
    found = predict(made_run, [f"arrays:{tmp_path / 'new.npz'}", f"arrays:{tmp_path / 'parts.npz'}"])
    assert [entry["file"] for entry in found] == [*(f"new.npz[{i}]" for i in range(3)), "parts.npz[0]", "parts.npz[1]"]
    for entry, same in zip(found, [*files, *files[1:]], strict=True):
        assert entry["top"] == same["top"]
    assert predict(made_run, [f"images:{tmp_path}"]) == files


def test_files_that_belong_to_answers_have_names_of_their_own():
    assert list(_unlike(["a", "b", "a", "F-0", "a"])) == ["a", "b", "a-2", "F-0", "a-3"]


def test_probabilities_by_hand_and_of_huge_logits():
    def top(logits: torch.Tensor) -> dict[str, float]:
        told = Classification(tuple("abc"[: len(logits)]), {}).tell(logits.unsqueeze(0), (8, 8), None)
        return {ranked["class"]: ranked["probability"] for ranked in told["top"]}

    assert top(torch.tensor([1.0, 2.0, 5.0]).log()) == pytest.approx({"a": 0.125, "b": 0.25, "c": 0.625})
    huge = torch.tensor([1000.0, 1000.0 + math.log(3.0)], dtype=torch.float64)
    assert top(huge) == pytest.approx({"a": 0.25, "b": 0.75})


def test_an_unreadable_image_is_named(made_run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(BadInput, match=r"broken\.png"):
        predict(made_run, [tmp_path / "broken.png"])


def test_an_altered_model_is_refused_before_it_is_opened(made_run, images, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(made_run, copy)
    (copy / "model.onnx").write_bytes((made_run / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(BadInput, match=r"model\.onnx: altered since the run"):
        predict(copy, [images])
