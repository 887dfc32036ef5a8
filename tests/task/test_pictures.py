import base64
import io

import numpy as np
import torch
from PIL import Image

from edgewright.task.pictures import data_uri


def decoded(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_pixels_come_back():
    image = torch.arange(3 * 5 * 5, dtype=torch.uint8).reshape(3, 5, 5)
    np.testing.assert_array_equal(decoded(data_uri(image)), image.numpy().transpose(1, 2, 0))


def test_floats_are_scaled_by_white_or_stretched():
    image = torch.tensor([[[0.0, 0.5], [1.0, 0.25]]])
    np.testing.assert_array_equal(decoded(data_uri(image, 1.0)), [[0, 128], [255, 64]])
    np.testing.assert_array_equal(decoded(data_uri(image * 4 - 3, 0.0)), [[0, 128], [255, 64]])
    assert decoded(data_uri(torch.full((1, 3, 3), 7.0), 0.0)).max() == 0


def test_large_images_are_shrunk_and_odd_channels_shown_by_the_first():
    assert decoded(data_uri(torch.zeros(2, 224, 224, dtype=torch.uint8))).shape == (112, 112)
