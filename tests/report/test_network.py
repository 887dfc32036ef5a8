import re
import xml.etree.ElementTree as ElementTree

from edgewright.core.result import BlockShare
from edgewright.report.network import picture, rows, short_words, table

ARCHITECTURE = {
    "space": "mobile",
    "resolution": 28,
    "stem_stride": 2,
    "head_width": 64,
    "stages": [
        {"kind": "inverted", "depth": 2, "width": 24, "kernel": 5, "expansion": 3, "squeeze": True, "stride": 2},
        {"kind": "separable", "depth": 1, "width": 40, "kernel": 3, "expansion": 1, "squeeze": False, "stride": 1},
    ],
}


def share(name: str, latency_ms: float, *shape: int) -> BlockShare:
    return BlockShare(name=name, latency_ms=latency_ms, macs=10, params=1000, output_shape=shape)


BLOCKS = [
    share("stem", 0.1, 16, 14, 14),
    share("stage1.0", 0.2, 24, 7, 7),
    share("stage1.1", 0.5, 24, 7, 7),
    share("stage2.0", 0.1, 40, 7, 7),
    share("head", 0.1, 10),
]


def test_blocks_in_words():
    words = {row.name: row.words for row in rows(ARCHITECTURE, BLOCKS)}
    assert words == {
        "Stem": "3 × 3 convolution, stride 2",
        "1.1": "inverted residual, 5 × 5, expands × 3, squeeze-excite, halves the resolution",
        "1.2": "inverted residual, 5 × 5, expands × 3, squeeze-excite",
        "2.1": "depthwise-separable, 3 × 3",
        "Head": "64 wide, mean over the image, classifier",
    }


def test_shares_add_up_and_the_longest_bar_is_full():
    text = table(rows(ARCHITECTURE, BLOCKS))
    shares = [float(share) for share in re.findall(r"<td class=\"num\">([\d.]+) %</td>", text)]
    assert shares == [10, 20, 50, 10, 10]
    assert [float(width) for width in re.findall(r"width:([\d.]+)%", text)] == [20, 40, 100, 20, 20]


def test_picture_is_well_formed_and_smaller_images_are_lower():
    drawn = ElementTree.fromstring(picture(rows(ARCHITECTURE, BLOCKS)))
    bars = list(drawn.iter("rect"))
    heights, breadths = ([float(bar.get(side)) for bar in bars] for side in ("height", "width"))
    assert heights[0] > heights[1] == heights[2] == heights[3] > heights[4]
    assert breadths[3] > breadths[1] > breadths[0]
    lefts = [float(bar.get("x")) for bar in bars]
    assert all(a + width < b for a, width, b in zip(lefts, breadths, lefts[1:], strict=False))


def test_oblong_maps_are_as_high_as_they_are_large():
    """A map of 4 x 49 has the pixels of one of 14 x 14."""
    blocks = [share("stem", 0.1, 16, 49, 16), share("stage1.0", 0.1, 16, 14, 14), share("stage2.0", 0.1, 16, 4, 49)]
    drawn = ElementTree.fromstring(picture(rows(ARCHITECTURE, blocks)))
    first, square, oblong = (float(bar.get("height")) for bar in drawn.iter("rect"))
    assert first > square == oblong
    assert short_words({**ARCHITECTURE, "resolution": [49, 10]})[0] == "49 x 10 px input"


def test_other_spaces_are_told_too():
    assert short_words({"space": "chain", "width": 12}) == ["space chain", "width 12"]
    assert short_words(ARCHITECTURE)[:2] == [
        "28 px input",
        "2 × inverted residual, 5 × 5, expands × 3, squeeze-excite, halves the resolution, 24 wide",
    ]
    drawn = rows({"space": "chain"}, [share("<b>odd</b>", 0.1, 8, 4, 4)])
    assert "<b>odd" not in table(drawn)
    assert "<b>odd" not in picture(drawn)
