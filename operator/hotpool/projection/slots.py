"""Rights on the keys of slots in use (lua/slots.lua), as arguments of the function `denied_commands`.

Pure: must not do I/O. A dispatcher imports it, too.
"""

from hotpool.projection.keys import FleetKeys


def slot_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the commands of reservations and releases on the keys of slots."""
    slots, entries, expiries = keys.slots
    of_hashes = (*_hash_commands(slots), *_hash_commands(entries))
    of_set = (f"ZADD {expiries} 1 1", f"ZREM {expiries} 1", f"ZCARD {expiries}", f"ZRANGEBYSCORE {expiries} 0 1")
    return (*of_hashes, *of_set, f"ZRANGE {expiries} 0 0", f"ZSCORE {expiries} 1", f"UNLINK {expiries}")


def slot_status_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the commands of the operator, which purges expired slots and reads those in use."""
    slots, entries, expiries = keys.slots
    of_hashes = (f"{words} 1" for key in (slots, entries) for words in (f"HGET {key}", f"HDEL {key}"))
    of_all = (f"HLEN {slots}", f"HLEN {entries}", f"ZCARD {expiries}", *(f"UNLINK {key}" for key in keys.slots))
    of_expired = (f"HSET {slots} 1 1", f"ZREM {expiries} 1", f"ZRANGEBYSCORE {expiries} 0 1")
    return (*of_hashes, *of_all, *of_expired, f"HSCAN {slots} 0")


def slot_read_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the command of a pick without reservation."""
    return (f"HMGET {keys.slots[0]} 1",)


def _hash_commands(key: str) -> tuple[str, ...]:
    return f"HGET {key} 1", f"HMGET {key} 1", f"HSET {key} 1 1", f"HDEL {key} 1", f"HLEN {key}", f"UNLINK {key}"
