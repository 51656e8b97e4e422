"""Credential of a user of a kubeconfig: token, password, certificate or exec plugin (requirements B9, F5). I/O.

Everything here may block. Errors are ValueError and OSError; that of a plugin is a value.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from hotpool.common.exec_plugin import ExecCredential, PluginError, run_plugin
from hotpool.common.kubeconfig import Entry, FileDigests, digest_of

_AUTHORIZATION: Final = "Authorization"

Headers = tuple[tuple[str, str], ...]
Pair = tuple[str, str]
"""Certificate and key (PEM)."""


def bearer(token: str) -> Headers:
    """Return the header of a token."""
    return ((_AUTHORIZATION, f"Bearer {token}"),)


@dataclass(slots=True)
class Files:
    """Files of a login. Digests are of what was read, so that no change is missed."""

    digests: FileDigests

    def text(self, path: Path) -> str:
        """Return the content of a file. Raises OSError, or ValueError if it is no text."""
        content = path.read_bytes()
        self.digests += ((path, digest_of(content)),)
        return content.decode()

    def pem(self, entry: Entry | None, key: str) -> str | None:
        """Return the data of an entry, else the content of the file that it names, else None."""
        if entry is None:
            return None
        if data := entry.text(f"{key}-data"):
            try:
                return base64.b64decode("".join(data.split()), validate=True).decode("ascii")
            except ValueError as error:
                raise ValueError(f"{key}-data of {entry.name} is not base64 of PEM") from error
        path = entry.path(key)
        if not path:
            return None
        if content := self.text(path).strip():
            return content
        raise ValueError(f"{key}: {path} is empty")

    def token(self, path: Path) -> str:
        """Return the token in a file. Raises OSError, or ValueError if it is empty."""
        token = self.text(path).strip()
        if not token:
            raise ValueError(f"token file {path} is empty")
        return token


@dataclass(frozen=True, slots=True)
class Credential:
    """Identity of a user. `problem`: reason why the exec plugin returned nothing."""

    headers: Headers = ()
    certificate: Pair | None = None
    expires: datetime | None = None
    problem: str | None = None

    @property
    def given(self) -> bool:
        """True if the exec plugin is not needed."""
        return bool(self.headers or self.certificate)


def stored_credential(user: Entry | None, files: Files) -> Credential:
    """Return the credential that the kubeconfig has, or names a file of."""
    if user is None:
        return Credential()
    certificate, key = files.pem(user, "client-certificate"), files.pem(user, "client-key")
    if bool(certificate) != bool(key):
        raise ValueError(f"user {user.name} needs both client-certificate and client-key")
    pair = (certificate, key) if certificate and key else None
    if token := _token(user, files):
        return Credential(bearer(token), pair)
    if name := user.text("username"):
        basic = base64.b64encode(f"{name}:{user.text('password')}".encode()).decode()
        return Credential(((_AUTHORIZATION, f"Basic {basic}"),), pair)
    return Credential(certificate=pair)


def _token(user: Entry, files: Files) -> str:
    """Return the token of the file, else the one in the kubeconfig, else that of the OpenID provider, else nothing."""
    stored, path = user.text("token").strip(), user.path("tokenFile")
    if path:
        try:
            return files.token(path)
        except (OSError, ValueError):
            if not stored:
                raise
    return stored or _openid_token(user)


def _openid_token(user: Entry) -> str:
    """Return the id-token of `auth-provider: oidc`. It is not refreshed here, because kubectl stores the new one."""
    provider = user.mapping("auth-provider")
    if not provider:
        return ""
    token = str((provider.get("config") or {}).get("id-token") or "")
    if provider.get("name") != "oidc" or not token:
        raise ValueError(f"auth-provider {provider.get('name')} of {user.name} is not supported; use an exec plugin")
    if _expiry_of(token) <= datetime.now(UTC).timestamp():
        raise ValueError(f"the id-token of {user.name} has expired; any kubectl command renews it")
    return token


def _expiry_of(token: str) -> float:
    """Return the time in the claims of a token, infinity if it has none."""
    try:
        payload = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (ValueError, LookupError, TypeError):
        return float("inf")


def plugin_credential(user: Entry, cluster: Mapping[str, Any], *, interactive: bool) -> Credential:
    """Return the credential of the user's exec plugin."""
    try:
        found: ExecCredential = run_plugin(user.mapping("exec"), user.folder, cluster, interactive=interactive)
    except PluginError as error:
        return Credential(problem=str(error))
    headers = bearer(found.token) if found.token else ()
    return Credential(headers, found.certificate, found.expires)


def impersonation(user: Entry | None) -> Headers:
    """Return the headers of the user to act as."""
    if user is None or not user.text("as"):
        return ()
    found = [("Impersonate-User", user.text("as"))]
    if uid := user.text("as-uid"):
        found.append(("Impersonate-Uid", uid))
    found += [("Impersonate-Group", str(group)) for group in user.fields.get("as-groups") or []]
    for key, values in user.mapping("as-user-extra").items():
        name = quote(str(key), safe="!#$&'*+^`|")  # what a header's name may have
        found += [(f"Impersonate-Extra-{name}", str(value)) for value in values or []]
    return tuple(found)
