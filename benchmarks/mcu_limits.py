"""The published MCUNet networks against an STM32F746: flash, peak SRAM by our plan, what was published, fits or not.

    python benchmarks/mcu_limits.py --networks weights_mcunet_int8

--networks: folder with mbv2-w0.35.npz, proxyless-w0.3.npz and mcunet-5fps.npz (integer networks; see model/mcunet.py).
Flash: bytes of weights, 32-bit biases and, for each channel, a 32-bit multiplier and shift. SRAM: the arena of int8
activations, input included, by three sets of rules of `device/board/memory_plan.py`. Each network at the resolution of
the file and at the published one; below that, the largest resolution (multiple of 16) that fits. KB of 1024 bytes.
Published figures are of the whole engine, its code and its buffers with it.
"""

import argparse
from pathlib import Path

import numpy as np

from edgewright.device.board.board import Board
from edgewright.device.board.memory_plan import RULES, plan_memory
from edgewright.device.resolve import make_device
from edgewright.ir.graph import Graph, count_macs
from edgewright.model.mcunet import int8_graph, read_plan

# By network: name there, resolution, million multiply-adds, SRAM and flash in kB, from the table of int8 networks on an
# STM32F746 with TinyEngine, https://github.com/mit-han-lab/mcunet (README.md, "Model List").
PUBLISHED = {
    "mbv2-w0.35": ("mbv2-w0.35", 144, 23.5, 308, 862),
    "proxyless-w0.3": ("proxyless-w0.3", 176, 38.3, 292, 892),
    "mcunet-5fps": ("mcunet-in1", 96, 12.8, 307, 992),
}
SHOWN = {"mcu": "SRAM", "tinyengine": "depthwise in place", "litert": "LiteRT's arena"}


def arenas(graph: Graph) -> dict[str, int]:
    return {name: plan_memory(graph, RULES[name], number_bytes=1).bytes for name in SHOWN}


def flash(path: Path) -> int:
    with np.load(path, allow_pickle=False) as arrays:
        return sum(
            arrays[name].size * {"weight": 1, "bias": 4, "w_scales": 8}[name.rsplit(".", 1)[1]]
            for name in arrays.files
            if "." in name
        )


def largest(cfg: dict, ram: float, rules: str) -> int:
    sides = range(32, 289, 16)
    return max(side for side in sides if arenas(int8_graph(cfg, side))[rules] <= ram)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--device", default="stm32f746")
    arguments = parser.parse_args()
    board = make_device(arguments.device)
    assert isinstance(board, Board)
    ram, room = (1024 * (kb or float("inf")) for kb in (board.target.ram_kb, board.target.flash_kb))
    print(f"{board.target.name}: {ram / 1024:g} KB of RAM, {room / 1024:g} KB of flash")
    heads = " | ".join(SHOWN.values())
    print(f"| network | px | M MACs | flash KB | {heads} | fits | by the law, ms | published M MACs | SRAM | flash |")
    print("|---" * 12 + "|")
    for name, (_, side, *published) in PUBLISHED.items():
        path = arguments.networks / f"{name}.npz"
        cfg = read_plan(path)
        for one in dict.fromkeys((int(cfg["input_size"]), side)):
            graph = int8_graph(cfg, one)
            found, held = arenas(graph), flash(path)
            latency = board.latency_model([]).predict([("whole", graph)])
            cells = [name, f"{one}", f"{count_macs(graph) / 1e6:.1f}", f"{held / 1024:.0f}"]
            cells += [f"{value / 1024:.1f}" for value in found.values()]
            cells += ["yes" if found["mcu"] <= ram and held <= room else "no", f"{latency:.0f}"]
            cells += [f"{value:g}" if one == side else "-" for value in published]
            print("| " + " | ".join(cells) + " |")
    print("\nlargest resolution that fits, multiples of 16: SRAM, depthwise in place, LiteRT's arena; published")
    for name, (there, side, *_) in PUBLISHED.items():
        cfg = read_plan(arguments.networks / f"{name}.npz")
        sides = ", ".join(f"{largest(cfg, ram, rules)}" for rules in SHOWN)
        print(f"{name}: {sides}; {side} ({there})")


if __name__ == "__main__":
    main()
