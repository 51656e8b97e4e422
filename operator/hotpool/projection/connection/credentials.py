"""User, password and certificates for Redis from files, read again for each new connection (E4).

A rotation does not affect an open connection. Must not let a password into a text, nor import anything that a
dispatcher does not have.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and paths of files; None to use the URL.

    `user`: of the ACL, None for `default`. `password`: file with the password, optionally followed by a line end. `ca`:
    PEM file with the trusted certificate authorities, instead of those of the system. `sentinel_password`: as
    `password`, for the sentinels.
    """

    user: str | None = None
    password: str | None = None
    ca: str | None = None
    sentinel_password: str | None = None


class PasswordFile(CredentialProvider):
    """Credential provider that reads the password from a file for each connection."""

    def __init__(self, user: str | None, path: str) -> None:
        self._user = user
        self._path = path
        self.secret = ""
        """Last password read, which is replaced in error texts."""

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return user and password. Raises AuthenticationError if the file cannot be read."""
        try:
            self.secret = Path(self._path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            # After an error of another class, redis-py would use the connection without a password.
            raise AuthenticationError(f"cannot read the password file: {error}") from None
        return (self._user, self.secret) if self._user else (self.secret,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return user and password. Blocking is acceptable: the file is small and local."""
        return self.get_credentials()


def tls_context(ca: str, connection: Any, password: str | None) -> ssl.SSLContext:
    """Return a TLS context that trusts only the certificates now in the file `ca`.

    `connection`: redis object with the other TLS settings. `password`: of the client's private key.
    """
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = connection.check_hostname
    context.verify_mode = ssl.VerifyMode(connection.cert_reqs)
    if connection.certfile:
        context.load_cert_chain(connection.certfile, connection.keyfile, password)
    return context


class ReloadingConnection(SSLConnection):
    """A TLS connection that reads the CA file each time it connects.

    With a CA file no other certificates are trusted.
    """

    def _connection_arguments(self) -> Mapping[str, Any]:
        settings = self.ssl_context
        if settings.ca_certs:
            settings.context = tls_context(settings.ca_certs, settings, settings.password)
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return arguments


class ReloadingSentinelConnection(SentinelManagedConnection, ReloadingConnection):
    """A ReloadingConnection to the master that the sentinels name."""
