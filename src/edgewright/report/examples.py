"""Images inside the report's own text."""

import base64
import io

import numpy as np
import torch
from PIL import Image

LARGEST = 112  # side in pixels; larger images are shrunk


def data_uri(image: torch.Tensor, white: float = 255.0) -> str:
    """A stored image (C, H, W) as a PNG in a data: URI. `white`: the value of a white pixel; 0 where it is unknown, and
    then the image's own range is stretched. With a number of channels no picture has, the first one is shown."""
    values = image.to(torch.float32)
    if white > 0:
        values = values * (255 / white)
    else:
        low, high = values.min(), values.max()
        values = (values - low) * (255 / (high - low).clamp(min=1e-12))
    pixels = values.round().clamp(0, 255).to(torch.uint8).numpy()
    shown = pixels[:3].transpose(1, 2, 0) if len(pixels) in (3, 4) else pixels[0]
    picture = Image.fromarray(np.ascontiguousarray(shown))
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
