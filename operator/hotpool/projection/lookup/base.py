"""What the look-up clients are made of, asyncio and blocking: a client of redis and the questions to one fleet.

Called by lookup.py and blocking.py. It must not import what the operator needs.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from hotpool.projection.connection.config import TIMEOUT_SECONDS
from hotpool.projection.keys import DEFAULT_PREFIX
from hotpool.projection.lookup.protocol import LookupProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hotpool.projection.connection.credentials import Credentials

ClientT = TypeVar("ClientT")


class BaseLookup(Generic[ClientT]):
    """Look-ups in the projection of one fleet, over a client of redis: one server, Sentinel or cluster.

    `chance`: the random number in [0, 1) of each pick; that of Python's module random is drawn anew in a forked child.
    """

    def __init__(
        self,
        client: ClientT,
        *,
        namespace: str,
        prefix: str = DEFAULT_PREFIX,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._protocol = LookupProtocol(namespace=namespace, prefix=prefix, chance=chance)

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
    ) -> Self:
        """Make one for a URL `redis[s]://[user[:password]@]host[:port]`; `timeout` in seconds.

        `cluster`: the server is a Redis Cluster of more than one shard. `sentinels`: `host:port` of each; the host of
        the URL is then the name of the service that they watch. `credentials`: files of password and certificates, read
        again at each new connection. Raises ValueError for an unreadable URL.
        """
        client = cls._connect(url, cluster=cluster, sentinels=sentinels, credentials=credentials, timeout=timeout)
        return cls(client, namespace=namespace, prefix=prefix)

    @classmethod
    def _connect(
        cls, url: str, *, cluster: bool, sentinels: Sequence[str], credentials: Credentials | None, timeout: float
    ) -> ClientT:
        raise NotImplementedError
