"""Connection settings of redis clients, from a URL and files, without connecting.

Must not import anything that a dispatcher does not have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from hotpool.projection.connection.credentials import Credentials, PasswordFile

TIMEOUT_SECONDS = 2.0
_SENTINEL_PORT = 26_379
_FORM = "redis[s]://[user[:password]@]host[:port][/db]"


@dataclass(frozen=True, slots=True)
class RedisConnectionConfig:
    """A URL, and settings that a URL cannot contain.

    `sentinels`: `host:port` of each; the host of the URL is then the name of the monitored service. `credentials`
    override those of the URL. `timeout` (seconds) limits connecting and each reply. Raises ValueError for a file of
    certificates without TLS.
    """

    url: str
    sentinels: Sequence[str]
    credentials: Credentials
    timeout: float

    def __post_init__(self) -> None:
        if self.credentials.ca and not self.secure:
            raise ValueError("a CA file needs TLS: the URL of Redis must begin with rediss://")

    @property
    def secure(self) -> bool:
        """Return True for TLS."""
        return self.url.startswith("rediss:")

    @property
    def service(self) -> str:
        """Name of the group that the sentinels monitor, in upper and lower case as in the URL."""
        return urlsplit(self.url).netloc.rpartition("@")[2].partition(":")[0]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Hosts and ports of the sentinels."""
        return [_address(text) for text in self.sentinels]

    def settings(self, parse: Callable[[str], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the settings of a connection. `parse`: redis-py's parse_url, of its async or its sync module."""
        settings: dict[str, Any] = {**parse(self.url)}
        if self.credentials.ca:
            settings["ssl_ca_certs"] = self.credentials.ca
        if self.credentials.user:
            settings["username"] = self.credentials.user
        if self.credentials.password:
            settings.pop("password", None)
            settings["credential_provider"] = PasswordFile(settings.pop("username", None), self.credentials.password)
        # A name read by the drift check is sent back unchanged, even if it is invalid UTF-8.
        settings |= {"encoding_errors": "surrogateescape", "health_check_interval": 0}
        return settings | {"socket_timeout": self.timeout, "socket_connect_timeout": self.timeout}

    def sentinel_pool(
        self, sentinel_type: Any, pool_type: Any, kind: type, reloading: type | None, settings: dict[str, Any]
    ) -> tuple[Any, Any]:
        """Return a pool of connections to the master that the sentinels name, and the clients of the sentinels.

        The types are those of redis-py's async or sync module. `reloading`: type of the connections to sentinels.
        """
        for name in ("connection_class", "host", "port"):
            settings.pop(name, None)
        sentinel = sentinel_type(self.addresses, sentinel_kwargs=self._for_sentinels(settings))
        for one in sentinel.sentinels if reloading else ():
            one.connection_pool.connection_class = reloading
        return pool_type(self.service, sentinel, connection_class=kind, **settings), sentinel.sentinels

    def _for_sentinels(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a connection to a sentinel, derived from those to the servers."""
        selected = {name: value for name, value in settings.items() if name.startswith(("socket_", "ssl_"))}
        selected |= {"retry": settings["retry"], "ssl": self.secure}
        if self.credentials.sentinel_password:
            selected["credential_provider"] = PasswordFile(None, self.credentials.sentinel_password)
        return selected

    def raise_unreadable(self) -> NoReturn:
        """Raise ValueError for an invalid URL, without its text."""
        raise ValueError(f"the URL of Redis is invalid; expected {_FORM}") from None


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    return host.strip("[]") or text.strip(), int(port) if host else _SENTINEL_PORT


def command_keys(words: Sequence[Any]) -> tuple[Any, ...] | None:
    """Return the keys of a command, or None for none: those of a function call or XREAD, else the first argument.

    For cluster clients. redis-py would send each function call with all its arguments to a node to find the keys: one
    more round trip, and an unreachable node would block calls to other shards.
    """
    if words[0] in {"FCALL", "FCALL_RO"}:
        return tuple(words[3 : 3 + int(words[2])])
    if words[0] == "XREAD":
        return tuple(words[words.index("STREAMS") + 1 : -1])  # of one stream
    return tuple(words[1:2]) or None


def describe_redacted(error: BaseException, settings: Mapping[str, Any]) -> str:
    """Return class and text of an error, with the password of these settings replaced."""
    text = f"{type(error).__name__}: {error}"
    provider = settings.get("credential_provider")
    secret = provider.secret if isinstance(provider, PasswordFile) else settings.get("password")
    return text.replace(secret, "***") if isinstance(secret, str) and secret else text


def to_text(value: object) -> str:
    """Decode a Redis reply to str. Invalid UTF-8 is replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
