"""Cycles per multiply-add of microcontrollers, from the published MLPerf Tiny results: the laws of the shipped targets.

    python benchmarks/mcu_laws.py --networks weights_mlperf_tiny --results mlperf_tiny.csv

--networks: folder with the four networks of MLPerf Tiny as .npz (`layers` as JSON, arrays by layer).   --results: rows
round, division, submitter, system, benchmark, mode, throughput_inf_per_s, ... of mlcommons/tiny_results_*.
Non-negative least squares on relative errors over the four networks; pointwise and depthwise layers, which come
together in two of them, share one figure.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

NETWORKS = {  # by benchmark: file, shape of the input
    "ad": ("ad_autoencoder_toycar", (640,)),
    "kws": ("dscnn_kws12", (49, 10, 1)),
    "vww": ("mobilenetv1_025_vww96", (96, 96, 3)),
    "ic": ("resnet8_cifar10", (32, 32, 3)),
}
BOARDS = {  # clock in MHz, round, system
    "stm32h7a3 (Cortex-M7)": (280, "v1.1", "NUCLEO-H7A3ZI-Q_X-CUBE-AI-8.0"),
    "stm32l4r5 (Cortex-M4)": (120, "v1.1", "NUCLEO-L4R5ZI_X-CUBE-AI-7.3"),
    "stm32u575 (Cortex-M33)": (160, "v1.0", "NUCLEO-U575ZI-Q"),
}
KINDS = ("dense", "pointwise", "depthwise", "linear")
Shape = tuple[int, ...]


def multiply_adds(path: Path, source: Shape) -> dict[str, int]:
    """By kind of layer."""
    arrays = np.load(path)
    found: dict[str, int] = dict.fromkeys(KINDS, 0)
    shapes: dict[str, Shape] = {}
    for layer in json.loads(str(arrays["layers"])):
        inputs = [shapes[name] for name in layer["inputs"]] or [source]
        kernels = [arrays[name] for name in arrays.files if name.startswith(layer["name"] + ".") and "kernel" in name]
        kind, macs, shapes[layer["name"]] = _layer(layer, inputs[0], kernels[0] if kernels else None)
        if kind is not None:
            found[kind] += macs
    return found


def _layer(layer: dict, source: Shape, kernel: np.ndarray | None) -> tuple[str | None, int, Shape]:
    """Its kind, multiply-adds and output's shape."""
    config, name = layer["config"], layer["class"]
    if name == "Dense" and kernel is not None:
        return "linear", kernel.size, (kernel.shape[-1],)
    if name in ("Conv2D", "DepthwiseConv2D") and kernel is not None:
        sides = zip(source[:2], kernel.shape[:2], config["strides"], strict=True)
        size = tuple(_length(*side, config["padding"]) for side in sides)
        if name == "DepthwiseConv2D":
            return "depthwise", int(np.prod(size)) * kernel.size, (*size, source[-1])
        kind = "pointwise" if kernel.shape[:2] == (1, 1) else "dense"
        return kind, int(np.prod(size)) * kernel.size, (*size, kernel.shape[-1])
    if name == "AveragePooling2D":
        return None, 0, (*(a // b for a, b in zip(source[:2], config["pool_size"], strict=True)), source[-1])
    if name == "GlobalAveragePooling2D":
        return None, 0, source[-1:]
    return None, 0, (int(np.prod(source)),) if name == "Flatten" else source


def _length(source: int, kernel: int, stride: int, padding: str) -> int:
    return -(-source // stride) if padding == "same" else (source - kernel) // stride + 1


def fit(macs: dict[str, dict[str, int]], cycles: dict[str, float]) -> tuple[np.ndarray, dict[str, float]]:
    """Cycles per multiply-add of dense, pointwise and depthwise, linear; and by network predicted over real."""
    rows = np.array([[m["dense"], m["pointwise"] + m["depthwise"], m["linear"]] for m in macs.values()], dtype=float)
    real = np.array([cycles[name] for name in macs])
    found, _ = nnls(rows / real[:, None], np.ones(len(real)))
    return found, dict(zip(macs, rows @ found / real, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    macs = {name: multiply_adds(args.networks / f"{file}.npz", shape) for name, (file, shape) in NETWORKS.items()}
    for name, found in macs.items():
        print(f"{name}: " + ", ".join(f"{kind} {count:,}" for kind, count in found.items()))
    results = list(csv.DictReader(args.results.open()))
    print("| board | MHz | dense | pointwise, depthwise | linear | predicted over real |")
    print("|---|---|---|---|---|---|")
    for board, (clock, round_, system) in BOARDS.items():
        rows = [r for r in results if (r["round"], r["system"], r["mode"]) == (round_, system, "performance")]
        cycles = {row["benchmark"]: 1e6 * clock / float(row["throughput_inf_per_s"]) for row in rows}
        found, ratio = fit(macs, cycles)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in ratio.items())
        print(f"| {board} | {clock} | " + " | ".join(f"{value:.2f}" for value in found) + f" | {shown} |")


if __name__ == "__main__":
    main()
