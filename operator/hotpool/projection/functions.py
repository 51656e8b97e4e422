"""The library of server-side functions: loading it, and calling its functions by name.

It must not know what the functions are about, nor import anything that a dispatcher does not have.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpool.projection.connection.async_connection import Client

Words: TypeAlias = tuple[str | bytes | int | float, ...]

LIBRARY = "hotpool_3"  # Raised when a function changes its meaning: old look-up clients then keep the old library.
_PARTS = ("common", "load", "meta", "pools", "nodes", "audit", "pick", "read")  # Each sees the locals of those before.


@cache
def source() -> tuple[str, str]:
    """Return the library as it is loaded, and its digest, which the loaded library knows of itself."""
    folder = files(__package__ or "hotpool.projection").joinpath("lua")
    parts = [folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in _PARTS]
    plain = "\n".join(parts).replace("@LIBRARY@", LIBRARY)
    digest = hashlib.blake2b(plain.encode(), digest_size=12).hexdigest()
    return plain.replace("@DIGEST@", digest), digest


def call_of(
    name: str, keys: Sequence[str | bytes], args: Sequence[str | bytes | int | float] = (), *, writes: bool = False
) -> Words:
    """Return the words of a call; one that only reads may be answered by a replica."""
    return ("FCALL" if writes else "FCALL_RO", f"{LIBRARY}_{name}", len(keys), *keys, *args)


def is_missing(error: Exception) -> bool:
    """Tell whether Redis refused because it does not have the function: nothing has been done then."""
    return "function not found" in str(error).lower()


class Functions:
    """The functions of the library on one server; errors of redis pass through unchanged."""

    def __init__(self, client: Client, *, may_load: bool) -> None:
        """Use `may_load` for the writer only: a look-up client has no right to load a library."""
        self._client = client
        self._may_load = may_load

    async def load(self, key: str) -> None:
        """Load the library where `key` is, in the place of one of the same name.

        On no other shard of a cluster: one that is away would hold up ours.
        """
        where = {"target_nodes": self._client.get_node_from_key(key)} if isinstance(self._client, RedisCluster) else {}
        await self._client.execute_command("FUNCTION LOAD", "REPLACE", source()[0], **where)

    async def call(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int | float] = ()) -> Any:
        """Call a function that writes. A library that is missing is loaded, and then the call is made once more."""
        return await self._call(call_of(name, keys, args, writes=True))

    async def read(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int | float] = ()) -> Any:
        """Call a function that only reads: a replica may answer."""
        return await self._call(call_of(name, keys, args))

    async def _call(self, words: Words) -> Any:
        try:
            return await self._client.execute_command(*words)
        except ResponseError as error:
            if not (self._may_load and is_missing(error)):
                raise
        await self.load(str(words[3]))
        return await self._client.execute_command(*words)
