"""The library of Redis functions: load it, and call its functions by name.

Must not depend on the meaning of the functions, nor import anything that a dispatcher does not have.
"""

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError, ResponseError

from hotpool.projection.connection.async_connection import Client, cancellable

CommandArgs: TypeAlias = tuple[str | bytes | int | float, ...]

LIBRARY = "hotpool_4"
"""Raise it if a function changes its meaning, and keep the former library in lua/former."""
FORMER_LIBRARY = "hotpool_3"
"""Library of the previous release, unchanged. It stays loaded beside LIBRARY for one release, for its clients."""
_FORMER_FILES = ("common", "load", "meta", "pools", "nodes", "drift_check", "pick", "read")
_LUA_FILES = (
    "common",
    "wakeups",
    "load",
    "slots",
    "failures",
    "meta",
    "pools",
    "nodes",
    "drift_check",
    "endpoints",
    "strategies",
    "ejections",
    "capacity",
    "room",
    "pick",
    "reservations",
    "fallback",
    "reports",
    "drain",
    "read",
)
"""Each file sees the locals of the previous ones, but for those of _CLOSED_FILES."""
_CLOSED_FILES = frozenset({"meta", "pools", "nodes", "drift_check", "fallback", "reports", "drain", "read"})
"""Files whose locals no other file sees, because Lua has at most 200 at a time."""

VERSION_COMMAND = ("INFO", "server")
SUPPORTED = "Redis 7.0 or later, or Valkey 7.2 or later,"
_UNKNOWN_COMMAND = re.compile(r"(ERR )?unknown command\W+(FCALL|FUNCTION)", re.IGNORECASE)


def library_source() -> tuple[str, str]:
    """Return the source of the library and its digest, which is also embedded in the source."""
    return _source(LIBRARY, "lua", _LUA_FILES, _CLOSED_FILES)


def former_library_source() -> tuple[str, str]:
    """Return the source of the former library and its digest."""
    return _source(FORMER_LIBRARY, "lua/former", _FORMER_FILES)


@cache
def _source(library: str, path: str, names: tuple[str, ...], closed: frozenset[str] = frozenset()) -> tuple[str, str]:
    folder = files(__package__ or "hotpool.projection").joinpath(path)
    texts = ((name, folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")) for name in names)
    parts = (f"do\n{text}end\n" if name in closed else text for name, text in texts)
    plain = "\n".join(parts).replace("@LIBRARY@", library)
    digest = hashlib.blake2b(plain.encode(), digest_size=12).hexdigest()
    return plain.replace("@DIGEST@", digest), digest


def build_call(
    name: str, keys: Sequence[str | bytes], args: Sequence[str | bytes | int | float] = (), *, writes: bool = False
) -> CommandArgs:
    """Return the Redis command of a call. Without `writes`, a replica may answer it."""
    return ("FCALL" if writes else "FCALL_RO", f"{LIBRARY}_{name}", len(keys), *keys, *args)


def is_library_missing(error: Exception) -> bool:
    """Return True if Redis does not have the function. The call then had no effect."""
    return "function not found" in str(error).lower()


def lacks_functions(error: BaseException) -> bool:
    """Return True if the server does not know FCALL, as Redis before 7.0."""
    return isinstance(error, ResponseError) and bool(_UNKNOWN_COMMAND.match(str(error)))


def too_old_text(info: Any) -> str:
    """Return the error text for a server without functions. `info`: its reply to VERSION_COMMAND, None without one."""
    if isinstance(info, dict) and "redis_version" not in info:
        info = next(iter(info.values()), None)  # of a cluster: by node
    version = info.get("redis_version", "") if isinstance(info, dict) else ""
    return f"this Redis (version {version or 'unknown'}) has no functions: {SUPPORTED} is needed"


class TooOldError(ResponseError):
    """The server has no functions. The text names its version and the one that is needed."""


class Functions:
    """The functions of the library on one server. Errors of redis are raised unchanged."""

    def __init__(self, client: Client, *, may_load: bool) -> None:
        """Store the client. Only the writer has `may_load`: a look-up client has no permission to load a library."""
        self._client = client
        self._may_load = may_load

    async def load(self, key: str) -> None:
        """Load the library on the shard of `key`, replacing one of the same name, and the former one if it is missing.

        Other shards of a cluster are skipped: an unreachable one would delay ours.
        """
        where = {"target_nodes": self._client.get_node_from_key(key)} if isinstance(self._client, RedisCluster) else {}
        await cancellable(self._client.execute_command("FUNCTION LOAD", "REPLACE", library_source()[0], **where))
        try:
            await cancellable(self._client.execute_command("FUNCTION LOAD", former_library_source()[0], **where))
        except ResponseError as error:
            if "already exists" not in str(error):
                raise

    async def has_former(self, key: str) -> bool:
        """Return True if the former library is loaded on the shard of `key`."""
        try:
            await cancellable(self._client.execute_command("FCALL_RO", f"{FORMER_LIBRARY}_overview", 1, key))
        except ResponseError as error:
            if is_library_missing(error):
                return False
            raise
        return True

    async def call(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int | float] = ()) -> Any:
        """Call a function that writes. If the library is missing, load it and repeat the call."""
        return await self._call(build_call(name, keys, args, writes=True))

    async def read(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int | float] = ()) -> Any:
        """Call a function that only reads. A replica may answer."""
        return await self._call(build_call(name, keys, args))

    async def _call(self, words: CommandArgs) -> Any:
        try:
            return await cancellable(self._client.execute_command(*words))
        except ResponseError as error:
            if lacks_functions(error):
                raise TooOldError(too_old_text(await self._version())) from None
            if not (self._may_load and is_library_missing(error)):
                raise
        await self.load(str(words[3]))
        return await cancellable(self._client.execute_command(*words))

    async def _version(self) -> Any:
        with suppress(RedisError, OSError):
            return await cancellable(self._client.execute_command(*VERSION_COMMAND))
        return None
