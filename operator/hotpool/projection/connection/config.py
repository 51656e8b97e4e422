"""How a Redis is reached, without reaching it: what a URL and files say, as settings of redis' clients.

Called by client.py and blocking_client.py. It must not import anything that a dispatcher does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from hotpool.projection.connection.credentials import PasswordFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hotpool.projection.connection.credentials import Credentials

TIMEOUT_SECONDS = 2.0
_SENTINEL_PORT = 26_379
_FORM = "redis[s]://[user[:password]@]host[:port][/db]"


@dataclass(frozen=True, slots=True)
class RedisConnectionConfig:
    """A URL, and what it cannot say.

    `sentinels`: `host:port` of each; the host of the URL is then the name of the service that they watch. `credentials`
    come before those of the URL. `timeout` (seconds) bounds the connection and each answer. Raises ValueError for a
    file of certificates without TLS.
    """

    url: str
    sentinels: Sequence[str]
    credentials: Credentials
    timeout: float

    def __post_init__(self) -> None:
        if self.credentials.ca and not self.secure:
            raise ValueError("a file of certificates is for TLS: the URL of Redis must begin with rediss://")

    @property
    def secure(self) -> bool:
        """Tell whether TLS is spoken."""
        return self.url.startswith("rediss:")

    @property
    def service(self) -> str:
        """What the sentinels call the servers: as written, not in lower case."""
        return urlsplit(self.url).netloc.rpartition("@")[2].partition(":")[0]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Hosts and ports of the sentinels."""
        return [_address(text) for text in self.sentinels]

    def settings(self, parse: Callable[[str], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the settings of a connection; `parse` is the parse_url of the kind of client."""
        settings: dict[str, Any] = {**parse(self.url)}
        if self.credentials.ca:
            settings["ssl_ca_certs"] = self.credentials.ca
        if self.credentials.user:
            settings["username"] = self.credentials.user
        if self.credentials.password:
            settings.pop("password", None)
            settings["credential_provider"] = PasswordFile(settings.pop("username", None), self.credentials.password)
        # A name that the audit found is sent as it was.
        settings |= {"encoding_errors": "surrogateescape", "health_check_interval": 0}
        return settings | {"socket_timeout": self.timeout, "socket_connect_timeout": self.timeout}

    def for_sentinels(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a connection to a sentinel, out of those to the servers."""
        theirs = {name: value for name, value in settings.items() if name.startswith(("socket_", "ssl_"))}
        theirs |= {"retry": settings["retry"], "ssl": self.secure}
        if self.credentials.sentinel_password:
            theirs["credential_provider"] = PasswordFile(None, self.credentials.sentinel_password)
        return theirs

    def unreadable(self) -> NoReturn:
        """Raise ValueError, without the URL, for one that cannot be read."""
        raise ValueError(f"the URL of Redis cannot be read: {_FORM}") from None


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    return host.strip("[]") or text.strip(), int(port) if host else _SENTINEL_PORT


def keys_of(words: Sequence[Any]) -> tuple[Any, ...] | None:
    """Where the keys are in what we send: numbered in a call of a function, else the first word; None for none.

    For clients of a cluster. redis-py would ask a node for each call of a function, with all of its arguments: a round
    trip more, and a node that is away would stop what is not its own.
    """
    if words[0] in {"FCALL", "FCALL_RO"}:
        return tuple(words[3 : 3 + int(words[2])])
    return tuple(words[1:2]) or None


def redacted(error: BaseException, settings: Mapping[str, Any]) -> str:
    """Return kind and text of an error, with the password of these settings taken out of it."""
    text = f"{type(error).__name__}: {error}"
    provider = settings.get("credential_provider")
    secret = provider.secret if isinstance(provider, PasswordFile) else settings.get("password")
    return text.replace(secret, "***") if isinstance(secret, str) and secret else text


def to_text(value: object) -> str:
    """Return what Redis answered as text, whether the client decodes or not; what is not UTF-8 becomes a mark."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
