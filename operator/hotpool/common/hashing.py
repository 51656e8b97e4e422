"""Hash slot of a node: FNV-1a with 64 bits (requirement D5). Pure."""

from functools import lru_cache
from typing import Final

_OFFSET: Final = 0xCBF29CE484222325
_PRIME: Final = 0x100000001B3
_64_BITS: Final = 0xFFFFFFFFFFFFFFFF


def fnv1a64(data: bytes) -> int:
    """Return the FNV-1a hash of the bytes, as published by its authors."""
    result = _OFFSET
    for byte in data:
        result = (result ^ byte) * _PRIME & _64_BITS
    return result


@lru_cache(maxsize=65536)
def slot(node: str, seed: str, count: int) -> int:
    """Return the slot of a node, from 0 to count - 1. Cached, because each of `count` pools needs it."""
    return fnv1a64(f"{node}\0{seed}".encode()) % count
