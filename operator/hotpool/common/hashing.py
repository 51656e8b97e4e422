"""Which part of a hash pool a node belongs to: FNV-1a with 64 bits (requirement D5).

Pure.
"""

from functools import lru_cache
from typing import Final

_OFFSET: Final = 0xCBF29CE484222325
_PRIME: Final = 0x100000001B3
_64_BITS: Final = 0xFFFFFFFFFFFFFFFF


def fnv1a64(data: bytes) -> int:
    """FNV-1a over the bytes, as published by its authors."""
    found = _OFFSET
    for byte in data:
        found = (found ^ byte) * _PRIME & _64_BITS
    return found


@lru_cache(maxsize=65536)
def slot(node: str, seed: str, count: int) -> int:
    """The part of a node, from 0 to count - 1. Kept, because each of `count` pools asks for it."""
    return fnv1a64(f"{node}\0{seed}".encode()) % count
