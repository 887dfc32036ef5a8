"""What latencies depend on: which processor it is, and what runs there, from the system's own words (`agent.facts`).

Virtual machines often share one name, and on Arm the machine's name says nothing: latency tables must not be shared by
what only sounds alike. No serial number, no name of a person or host.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ARM_PARTS = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710",
    0xD48: "Cortex-X2", 0xD49: "Neoverse-N2", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2",
    0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0F: "Cortex-A15",
}  # fmt: skip
X86_WORDS = ("cpu family", "model", "stepping")
RISCV_WORDS = ("uarch", "isa")


def processor(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Words of an identity, as far as the system says: "cpu", a text; "cores"; "caches"; "max_mhz"; "runtime";
    "runtime_version"."""
    found = {
        "cpu": name(facts["cpuinfo"], facts["board"], facts["system"]),
        "cores": facts["cores"],
        "caches": caches(facts["caches"]),
        "max_mhz": max((int(text) // 1000 for text in facts["khz"] if text.isdecimal()), default=0),
        "runtime": facts["runtime"],
        "runtime_version": facts["runtime_version"],
    }
    return {key: value for key, value in found.items() if value}


def name(cpuinfo: str, board: str, system: str) -> str:
    """The processor in words.

    x86: its name with family, model and stepping.   Arm: the board, and each kind of core in it (implementer, part,
    variant, revision), as `lscpu` names them; cores that sleep may be missing there, so they are not counted.
    """
    blocks = [_fields(block) for block in cpuinfo.split("\n\n")]
    whole = {key: value for block in blocks for key, value in block.items()}
    if "CPU part" in whole:
        kinds = {_arm_core(block) for block in blocks if "CPU part" in block}
        where = whole.get("Model") or board.strip("\0\n ") or whole.get("Hardware")
        return ", ".join(filter(None, [where, " + ".join(sorted(kinds))]))
    first = blocks[0]
    words = [first.get("model name") or first.get("cpu model") or system]
    words += [f"{key} {first[key]}" for key in (*X86_WORDS, *RISCV_WORDS) if key in first]
    return ", ".join(words)


def _fields(block: str) -> dict[str, str]:
    split = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in split}


def _arm_core(fields: Mapping[str, str]) -> str:
    maker, part = fields.get("CPU implementer", "?"), fields["CPU part"]
    known = ARM_PARTS.get(_number(part)) if maker == "0x41" else None
    variant = fields.get("CPU variant", "?").removeprefix("0x")
    named = f"{known} " if known else "implementer "
    return f"{named}{maker} part {part} r{variant}p{fields.get('CPU revision', '?')}"


def _number(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return -1


def caches(found: Iterable[Sequence[str]]) -> str:
    """Sizes of data caches by level, of all kinds of core: "L1 32K+64K, L2 512K"."""
    sizes: dict[str, set[str]] = {}
    for level, size in found:
        sizes.setdefault(level, set()).add(size)
    return ", ".join(f"L{level} {'+'.join(sorted(of))}" for level, of in sorted(sizes.items()))
