import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.export.load import load_model
from edgewright.export.predict import predict, softmax
from edgewright.task.base import TaskSpec, normalise
from edgewright.task.sources.images import read_images


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.png", "a.png", "inner/c.png"):
        Image.fromarray(random.integers(0, 256, (11, 17), dtype=np.uint8)).save(folder / name)
    return folder


def test_predictions_are_those_of_the_pytorch_network(made_run, images):
    found = predict(made_run, [images / "b.png", images], top=3)
    assert [prediction.path for prediction in found] == [
        str(images / name) for name in ("b.png", "a.png", "b.png", "inner/c.png")
    ]
    result = RunFolder(made_run).read_result()
    spec = TaskSpec.parse(result.task, "result")
    inputs = normalise(read_images([images / "b.png", images], spec), spec, result.architecture["resolution"])
    with torch.no_grad():
        expected = load_model(made_run)(inputs).softmax(1)
    for prediction, row in zip(found, expected, strict=True):
        assert [ranked.label for ranked in prediction.top] == [spec.classes[i] for i in row.topk(3).indices]
        assert prediction.label == prediction.top[0].label
        assert prediction.probability == pytest.approx(float(row.max()), abs=1e-4)


def test_softmax_by_hand_and_of_huge_logits():
    np.testing.assert_allclose(softmax(np.log(np.array([1.0, 2.0, 5.0]))), [0.125, 0.25, 0.625])
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0 + np.log(3.0)], dtype=np.float64)), [0.25, 0.75])


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
