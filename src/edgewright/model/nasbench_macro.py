"""The networks of NAS-Bench-Macro: eight layers in three stages, each layer one of three blocks.

    stem     3x3 convolution to 32 channels, batch norm, ReLU
    stages   2, 3, 3 layers of 64, 128, 256 channels; the first of each halves the image
    head     1x1 convolution to 1,280 channels, norm, ReLU, mean over the image, classifier

    identity   nothing; where the shape changes a 1x1 convolution with a batch norm
    mb3_k3     inverted residual, expansion 3, 3x3 depthwise
    mb6_k5     inverted residual, expansion 6, 5x5 depthwise

First weights are those of `model.blocks`, not torch's own as in the official code.
Source: Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021, arXiv:2103.11922.
Checked against: parameters and multiply-adds of the published table, all 6,561 networks
(tests/space/test_nasbench_macro.py).
"""

from collections.abc import Sequence

from torch import nn

from edgewright.model.blocks import Block, ConvNorm

LAYERS = ("identity", "mb3_k3", "mb6_k5")
STAGES = ((64, 2), (128, 3), (256, 3))  # width, layers
STEM_WIDTH = 32
HEAD_WIDTH = 1280
MOBILE = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}  # expansion, kernel


def frame() -> list[tuple[int, int, int]]:
    """Of each of the eight layers: channels in, channels out, stride."""
    places, source = [], STEM_WIDTH
    for width, layers in STAGES:
        for layer in range(layers):
            places.append((source, width, 1 if layer else 2))
            source = width
    return places


def macro_parts(channels: int, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Stem and layers by name: stem, layer1 to layer8.   layers: eight names from `LAYERS`."""
    parts: dict[str, nn.Module] = {"stem": ConvNorm(channels, STEM_WIDTH, 3)}
    for number, (layer, place) in enumerate(zip(layers, frame(), strict=True), 1):
        parts[f"layer{number}"] = _layer(layer, *place)
    return parts


def _layer(layer: str, source: int, width: int, stride: int) -> nn.Module:
    if layer != "identity":
        expansion, kernel = MOBILE[layer]
        return Block(source, width, kind="inverted", kernel=kernel, expansion=expansion, squeeze=False, stride=stride)
    same = source == width and stride == 1
    return nn.Identity() if same else ConvNorm(source, width, 1, stride, activate=False)
