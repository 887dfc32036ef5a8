"""What this processor can compute quickly, as its own flags say."""

import functools
import platform
from pathlib import Path

X86 = {"x86_64", "amd64", "i386", "i686"}
ARM = {"aarch64", "arm64"}


@functools.cache
def flags() -> frozenset[str]:
    """The processor's instruction flags in the names of /proc/cpuinfo; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":") for line in lines)
    return frozenset(next((words.split() for name, _, words in named if name.strip() in ("flags", "Features")), ()))


def is_x86() -> bool:
    return platform.machine().lower() in X86


def has_vnni() -> bool:
    """Whether u8 times s8 products are summed in 32 bits without saturating on the way (VNNI, or AMX)."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & flags())


def has_bf16() -> bool:
    """Whether there are instructions that multiply bfloat16."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags())
