"""Common base of the asynchronous and the synchronous look-up client.

Must not import anything that a dispatcher does not have.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

from hotpool.projection.connection.config import TIMEOUT_SECONDS
from hotpool.projection.connection.credentials import Credentials
from hotpool.projection.keys import DEFAULT_PREFIX
from hotpool.projection.lookup.wait_protocol import WaitProtocol

ClientT = TypeVar("ClientT")
RoomT = TypeVar("RoomT")
MAX_CONNECTIONS = 64
"""Limit of the requests of one client at a time, and so of its connections. Others wait for their turn."""


class BaseLookup(Generic[ClientT, RoomT]):
    """Look-ups in the projection of one fleet, over a client of redis: one server, Sentinel or cluster.

    `chance`: returns the random number in [0, 1) of each pick. Python's module random reseeds in a forked child.
    `source`: name of this dispatcher in its failure reports. Default: host and process id.
    """

    _semaphore: Callable[[int], Any]
    """Type of the semaphore that limits requests."""

    def __init__(
        self,
        client: ClientT,
        *,
        namespace: str,
        prefix: str = DEFAULT_PREFIX,
        chance: Callable[[], float] = random.random,
        source: str | None = None,
    ) -> None:
        self._client = client
        self._slots = self._semaphore(MAX_CONNECTIONS)
        self._protocol = WaitProtocol(namespace=namespace, prefix=prefix, chance=chance, source=source)
        self._room = self._open_room()

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        namespace: str,
        prefix: str = DEFAULT_PREFIX,
        cluster: bool = False,
        sentinels: Sequence[str] = (),
        credentials: Credentials | None = None,
        timeout: float = TIMEOUT_SECONDS,
        source: str | None = None,
    ) -> Self:
        """Create a client for a URL `redis[s]://[user[:password]@]host[:port]`; `timeout` in seconds.

        `cluster`: the server is a Redis Cluster of more than one shard. `sentinels`: `host:port` of each; the host of
        the URL is then the name of the monitored service. `credentials`: files of password and certificates, read
        again for each new connection. `source`: name of this dispatcher in its failure reports, one for each process;
        default: host and process id. Raises ValueError for an invalid URL or source.
        """
        client = cls._connect(url, cluster=cluster, sentinels=sentinels, credentials=credentials, timeout=timeout)
        return cls(client, namespace=namespace, prefix=prefix, source=source)

    def _open_room(self) -> RoomT:
        """Return the room of the picks that wait."""
        raise NotImplementedError

    @classmethod
    def _connect(cls, url: str, **options: Any) -> ClientT:
        raise NotImplementedError
