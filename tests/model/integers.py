"""A small integer network, and what any of them computes in integers alone: an independent reference.

A float32 product or sum is an integer rounded to 24 bits, half to even; a float32 scale is a whole number of 24 bits
times a power of two.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Arrays = dict[str, np.ndarray]


def round_shift(n: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """n / 2^shift to the nearest whole number, half to even."""
    shift = np.asarray(shift, np.int64)
    n, shift = np.broadcast_arrays(n, np.minimum(shift, 62))
    low = n >> shift
    rest, half = n - (low << shift), np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 1)
    return low + ((rest > half) | ((rest == half) & (low & 1 == 1)))


def to_24_bits(n: np.ndarray) -> np.ndarray:
    shift = np.maximum(np.frexp(np.abs(n).astype(np.float64))[1] - 24, 0).astype(np.int64)
    return round_shift(n, shift) << shift


def whole(scale: np.ndarray | np.floating) -> tuple[np.ndarray, np.ndarray]:
    """A float32 as n 2^-shift."""
    fraction, exponent = np.frexp(np.float64(np.float32(scale)))
    return np.asarray(fraction * 2**24, np.int64), np.asarray(24 - exponent, np.int64)


def convolution(x: np.ndarray, weight: np.ndarray, stride: int, groups: int) -> np.ndarray:
    pad = (weight.shape[2] - 1) // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(x, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    parts = zip(np.split(windows, groups, 1), np.split(weight, groups, 0), strict=True)
    return np.concatenate([np.einsum("bchwij,ocij->bohw", w, k, optimize=True) for w, k in parts], 1)


def layer(x: np.ndarray, cfg: dict[str, Any], arrays: Arrays) -> np.ndarray:
    weight, bias, scale = (arrays[f"{cfg['id']}.{part}"] for part in ("weight", "bias", "w_scales"))
    total = convolution(x - int(cfg["x_zero"]), weight.astype(np.int64), cfg["stride"], cfg["groups"])
    total = to_24_bits(total + to_24_bits(bias.astype(np.int64))[:, None, None])
    multiplier, shift = whole(cfg["x_scale"] * scale.astype(np.float64) / cfg["y_scale"])
    scaled = round_shift(to_24_bits(total * multiplier[:, None, None]), shift[:, None, None])
    return np.clip(scaled + int(cfg["y_zero"]), -128, 127)


def shortcut(x: np.ndarray, y: np.ndarray, cfg: dict[str, float]) -> np.ndarray:
    (one, down), (other, other_down) = (whole(np.float32(cfg[n] / cfg["y_scale"])) for n in ("x_scale", "c_scale"))
    deepest = np.maximum(down, other_down)
    left = to_24_bits((x - int(cfg["x_zero"])) * one) << (deepest - down)
    right = to_24_bits((y - int(cfg["c_zero"])) * other) << (deepest - other_down)
    return np.clip(round_shift(to_24_bits(left + right), deepest) + int(cfg["y_zero"]), -128, 127)


def pooled(x: np.ndarray) -> np.ndarray:
    total, count = x.sum((2, 3), keepdims=True), x.shape[2] * x.shape[3]
    low, rest = np.divmod(total, count)
    return low + ((2 * rest > count) | ((2 * rest == count) & (low & 1 == 1)))


def network(x: np.ndarray, cfg: dict[str, Any], arrays: Arrays) -> np.ndarray:
    """Whole numbers (B, 3, H, W) to whole scores (B, classes)."""
    x = layer(x.astype(np.int64), cfg["first_conv"], arrays)
    for block in cfg["blocks"]:
        y = x
        for conv in block["convs"]:
            y = layer(y, conv, arrays)
        x = shortcut(x, y, block["residual"]) if block["residual"] else y
    return layer(pooled(x), cfg["classifier"], arrays)[:, :, 0, 0]


def small(seed: int = 0) -> tuple[dict[str, Any], Arrays]:
    """Two inverted residuals, one with a shortcut, of random weights; scales such that clamps act on both sides."""
    random = np.random.default_rng(seed)
    arrays: Arrays = {}

    def conv(name: str, source: tuple[int, float, float], out: int, kernel: int, stride: int, groups: int, zero: float):
        fan = source[0] // groups * kernel**2
        scale = float(random.uniform(0.02, 0.08))
        arrays[f"{name}.weight"] = random.integers(-127, 128, (out, source[0] // groups, kernel, kernel), np.int8)
        weight_scale = (random.uniform(0.3, 3, out) * scale / source[1] / 50 / fan**0.5).astype(np.float32)
        arrays[f"{name}.w_scales"] = weight_scale
        arrays[f"{name}.bias"] = random.integers(-3000, 3000, out).astype(np.int32)
        cfg = {"id": name, "in_channel": source[0], "out_channel": out, "kernel_size": kernel, "stride": stride}
        return {
            **cfg,
            "groups": groups,
            "x_scale": source[1],
            "x_zero": source[2],
            "y_scale": scale,
            "y_zero": zero,
            "act": None,
        }

    def after(cfg: dict[str, Any]) -> tuple[int, float, float]:
        return cfg["out_channel"], cfg["y_scale"], cfg["y_zero"]

    first = conv("first", (3, 2 / 255, 0.0), 6, 3, 2, 1, -128.0)
    a = conv("b0.depthwise", after(first), 6, 3, 1, 6, -128.0)
    b = conv("b0.pointwise2", after(a), 8, 1, 1, 1, 3.0)
    c = conv("b1.pointwise1", after(b), 16, 1, 1, 1, -128.0)
    d = conv("b1.depthwise", after(c), 16, 5, 1, 16, -127.0)
    e = conv("b1.pointwise2", after(d), 8, 1, 1, 1, -11.0)
    joined = {"x_scale": b["y_scale"], "x_zero": b["y_zero"], "c_scale": e["y_scale"], "c_zero": e["y_zero"]}
    joined |= {"y_scale": 1.1 * max(b["y_scale"], e["y_scale"]), "y_zero": 5.0}
    fc = conv("fc", (8, joined["y_scale"], 5.0), 4, 1, 1, 1, 0.0)
    blocks = [{"convs": [a, b], "residual": None}, {"convs": [c, d, e], "residual": joined}]
    return {"first_conv": first, "blocks": blocks, "classifier": fc, "input_size": 20}, arrays
