"""Randomness as a value: every random choice comes from a seed and the names of what it is for."""

import hashlib
import random


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on `seed` and `names` only: same arguments, same number, on any machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *names: object) -> random.Random:
    return random.Random(derive(seed, *names))
