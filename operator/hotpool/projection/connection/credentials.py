"""User, password and certificates for Redis from files, read again at each new connection (requirement E4).

A connection that stands is not touched by a rotation; the next one uses what the files hold. It must not let a password
into a text, nor import anything that a dispatcher does not have.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Credentials:
    """Paths of files, None where what the URL says is enough.

    `user`: of the ACL, None for `default`; `password`: file with the password and at most one line end after it; `ca`:
    file with the certificates (PEM) that may have signed the server's, in the place of the machine's;
    `sentinel_password`: like `password`, for the sentinels.
    """

    user: str | None = None
    password: str | None = None
    ca: str | None = None
    sentinel_password: str | None = None


class PasswordFile(CredentialProvider):
    """Tells redis the user and the password that the file holds now."""

    def __init__(self, user: str | None, path: str) -> None:
        self._user = user
        self._path = path
        self.secret = ""
        """The password told last, to be taken out of texts."""

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return user and password; raises AuthenticationError where the file cannot be read."""
        try:
            self.secret = Path(self._path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            # Of redis' own kind: after any other, redis would go on to use the connection without a password.
            raise AuthenticationError(f"cannot read the password file: {error}") from None
        return (self._user, self.secret) if self._user else (self.secret,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the same; the file is small and local."""
        return self.get_credentials()


def trusting(ca: str, connection: Any, password: str | None) -> ssl.SSLContext:
    """Return the settings of TLS that trust the certificates that the file `ca` holds now, and no others.

    `connection`: what redis keeps of its other settings; `password`: that of its own key.
    """
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = connection.check_hostname
    context.verify_mode = ssl.VerifyMode(connection.cert_reqs)
    if connection.certfile:
        context.load_cert_chain(connection.certfile, connection.keyfile, password)
    return context


class FreshConnection(SSLConnection):
    """A connection over TLS that reads the certificates anew each time that it is made.

    With a file of certificates of one's own no others are trusted.
    """

    def _connection_arguments(self) -> Mapping[str, Any]:
        settings = self.ssl_context
        if settings.ca_certs:
            settings.context = trusting(settings.ca_certs, settings, settings.password)
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return arguments


class FreshSentinelConnection(SentinelManagedConnection, FreshConnection):
    """The same, to whatever the sentinels call the master."""
