"""Processors are told apart, by texts as real machines have them."""

from pathlib import Path

import pytest

from edgewright.device import agent
from edgewright.device.processor import name, processor

CORE = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: {maker}
CPU architecture: 8
CPU variant\t: {variant}
CPU part\t: {part}
CPU revision\t: {revision}
"""


def cores(count: int, maker: str, part: str, variant: str, revision: int, first: int = 0) -> str:
    return "\n".join(
        CORE.format(number=first + number, maker=maker, part=part, variant=variant, revision=revision)
        for number in range(count)
    )


PI_4 = cores(4, "0x41", "0xd08", "0x0", 3) + (
    "\nHardware\t: BCM2835\nRevision\t: c03111\nSerial\t\t: 10000000abcdef01\n"
    "Model\t\t: Raspberry Pi 4 Model B Rev 1.1\n"
)
PI_5 = cores(4, "0x41", "0xd0b", "0x4", 1) + (
    "\nRevision\t: d04170\nSerial\t\t: 20000000abcdef02\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
)
PHONE = "\n".join(
    (
        "Processor\t: AArch64 Processor rev 14 (aarch64)",
        cores(4, "0x51", "0x805", "0xd", 14),
        cores(3, "0x51", "0x804", "0xd", 14, first=4),
        cores(1, "0x41", "0xd0b", "0x3", 0, first=7),
        "Hardware\t: Qualcomm Technologies, Inc SM8150\n",
    )
)
X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: Intel(R) Xeon(R) Processor
stepping\t: 2
cpu MHz\t\t: 2100.000

processor\t: 1
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: Intel(R) Xeon(R) Processor
stepping\t: 2
cpu MHz\t\t: 1800.000
"""


@pytest.mark.parametrize(
    ("cpuinfo", "board", "system", "said"),
    [
        (PI_4, "", "aarch64", "Raspberry Pi 4 Model B Rev 1.1, Cortex-A72 0x41 part 0xd08 r0p3"),
        (PI_5, "", "aarch64", "Raspberry Pi 5 Model B Rev 1.0, Cortex-A76 0x41 part 0xd0b r4p1"),
        (
            PHONE,
            "",
            "aarch64",
            "Qualcomm Technologies, Inc SM8150, Cortex-A76 0x41 part 0xd0b r3p0 + implementer 0x51 part 0x804 rdp14 + "
            "implementer 0x51 part 0x805 rdp14",
        ),
        (cores(2, "0x41", "0xd0c", "0x3", 1), "", "aarch64", "Neoverse-N1 0x41 part 0xd0c r3p1"),  # a server
        (
            cores(1, "0x41", "0xd03", "0x0", 4),
            "Radxa ROCK 3A\0",
            "",
            "Radxa ROCK 3A, Cortex-A53 0x41 part 0xd03 r0p4",
        ),
        (X86, "", "x86_64", "Intel(R) Xeon(R) Processor, cpu family 6, model 207, stepping 2"),
        ("", "", "Apple M1", "Apple M1"),  # macOS has no /proc
        ("processor\t: 0\nisa\t: rv64gc\nuarch\t: u74-mc\n", "", "riscv64", "riscv64, uarch u74-mc, isa rv64gc"),
    ],
)  # fmt: skip
def test_processors_are_told_apart(cpuinfo: str, board: str, system: str, said: str) -> None:
    found = name(cpuinfo, board, system)
    assert found == said
    assert "abcdef" not in found  # serial numbers stay where they are


def test_caches_and_clocks_of_all_kinds_of_core(tmp_path: Path) -> None:
    for core, (first, second, clock) in enumerate([("32K", "128K", 1800), ("64K", "512K", 2840)]):
        every = [(1, "Data", first), (1, "Instruction", "1K"), (2, "Unified", second)]
        for index, (level, kind, size) in enumerate(every):
            place = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            place.mkdir(parents=True)
            for word, value in (("level", level), ("type", kind), ("size", size)):
                (place / word).write_text(f"{value}\n")
        (tmp_path / f"cpu{core}" / "cpufreq").mkdir()
        (tmp_path / f"cpu{core}" / "cpufreq" / "cpuinfo_max_freq").write_text(f"{clock}000\n")
    found = processor(agent.facts(tmp_path))
    assert (found["caches"], found["max_mhz"]) == ("L1 32K+64K, L2 128K+512K", 2840)
    assert not {"caches", "max_mhz"} & set(processor(agent.facts(tmp_path / "none")))


def test_this_processor_is_the_same_at_every_look() -> None:
    found = processor(agent.facts())
    assert found == processor(agent.facts()) and found["cpu"] and found["cores"] >= 1
