"""Address of the API server, trust and credentials, from a kubeconfig or a service account (B9, F5). I/O.

A `Login` keeps digests of its files: a rotated token, certificate or kubeconfig is detected by content, not by time.
The client's own loaders read a `tokenFile` once, judge a token's age by the wall clock, and do not strip the newline at
its end. Everything here may block, so it runs in a thread. Must not send requests.
"""

import base64
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hotpool.common import kubeconfig
from hotpool.common.kube_credential import (
    Files,
    Headers,
    Pair,
    bearer,
    impersonation,
    plugin_credential,
    stored_credential,
)
from hotpool.common.kubeconfig import Entry, FileDigests, Selection, Target, digest_of
from hotpool.common.proxy import proxy_for

_EXEC_EXTENSION: Final = "client.authentication.k8s.io/exec"


@dataclass(frozen=True, slots=True)
class Login:
    """Address of an API server, and the present trust and credential for it."""

    server: str
    server_name: str | None
    """Name in the server's certificate, where it is not that of the address."""
    proxy: str | None
    verifies: bool
    authority: str | None
    """Trusted certificates (PEM); None: the machine's."""
    certificate: Pair | None
    headers: Headers
    """Headers of each request: the credential, and the user to act as."""
    target: Target
    """The target with its context and namespace resolved."""
    files: FileDigests
    expires: datetime | None = None
    problem: str | None = None
    """Reason why the exec plugin returned no credential, so that there is none."""
    tls: ssl.SSLContext | None = None
    """Context of connections to the server; None for plain HTTP."""

    def is_stale(self) -> bool:
        """Return True if the content of one of its files has changed, or its credential has expired."""
        expired = self.expires is not None and datetime.now(UTC) >= self.expires
        return expired or any(_digest(path) != digest for path, digest in self.files)

    def new_context(self) -> ssl.SSLContext:
        """Return a new TLS context. As in kubectl, any of the trusted certificates may be the root."""
        context = ssl.create_default_context(cadata=self.authority)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.load_certificate(context)
        return context

    def load_certificate(self, context: ssl.SSLContext) -> None:
        """Use the client certificate in new connections of the context."""
        if self.certificate:
            with _file(self.certificate[0]) as certificate, _file(self.certificate[1]) as key:
                context.load_cert_chain(certificate, key, password="")  # no question at the terminal


def load_login(target: Target, *, interactive: bool = False) -> Login:
    """Load a login from the present contents of the files. Raises TargetError.

    `interactive`: an exec plugin may ask a person at the terminal.
    """
    config = kubeconfig.load(target)
    if kubeconfig.service_account_used(target, config):
        with kubeconfig.usable(f"in the pod, {kubeconfig.SERVICE_ACCOUNT}"):
            return _checked(_from_service_account(target, config.digests))
    selection = kubeconfig.select(config, target.context)
    with kubeconfig.usable(config.source):
        return _checked(_from_selection(target, selection, config.digests, interactive=interactive))


def _checked(login: Login) -> Login:
    """Return the login with its TLS context, if TLS and HTTP accept its parts. Raises ValueError or OSError."""
    for name, value in login.headers:
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the value of {name} is not one line of ASCII; check the token")
    if not login.server.startswith("https"):
        return login
    try:
        return replace(login, tls=login.new_context())
    except ssl.SSLError as error:
        what = "client certificate" if login.certificate else "certificate-authority"
        raise ValueError(f"the {what} is not usable: {error.reason or error}") from error


def _from_service_account(target: Target, digests: FileDigests) -> Login:
    files, folder = Files(digests), kubeconfig.SERVICE_ACCOUNT
    token, authority = files.token(folder / "token"), files.text(folder / "ca.crt")
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Login(
        server=server,
        server_name=None,
        proxy=proxy_for(server, None, os.environ),
        verifies=True,
        authority=authority,
        certificate=None,
        headers=bearer(token),
        target=Target(namespace=target.namespace or kubeconfig.service_account_namespace()),
        files=files.digests,
    )


def _from_selection(target: Target, selection: Selection, digests: FileDigests, *, interactive: bool) -> Login:
    cluster, user, files = selection.cluster, selection.user, Files(digests)
    authority, insecure = files.pem(cluster, "certificate-authority"), cluster.flag("insecure-skip-tls-verify")
    if authority and insecure:
        raise ValueError(f"cluster {cluster.name} has both a certificate-authority and insecure-skip-tls-verify")
    credential = stored_credential(user, files)
    server = _url(cluster.text("server"), secure=bool(authority or credential.certificate or insecure))
    if user is None and server.startswith("https"):
        raise LookupError(f"context {selection.context!r} has no user in the file")
    if user and user.mapping("exec") and not credential.given:
        described = _cluster_info(cluster, server, authority)
        credential = plugin_credential(user, described, interactive=interactive)
    return Login(
        server=server,
        server_name=cluster.text("tls-server-name") or None,
        proxy=proxy_for(server, cluster.text("proxy-url"), os.environ),
        verifies=not insecure,
        authority=authority,
        certificate=credential.certificate,
        headers=(*credential.headers, *impersonation(user)),
        target=Target(target.kubeconfig, selection.context, target.namespace or selection.namespace),
        files=files.digests,
        expires=credential.expires,
        problem=credential.problem,
    )


def _url(server: str, *, secure: bool) -> str:
    return (server if "://" in server else f"{'https' if secure else 'http'}://{server}").rstrip("/")


def _cluster_info(cluster: Entry, server: str, authority: str | None) -> dict[str, Any]:
    """Return the description of the cluster for an exec plugin."""
    info: dict[str, Any] = {"server": server}
    for name in ("tls-server-name", "proxy-url"):
        if value := cluster.text(name):
            info[name] = value
    if cluster.flag("insecure-skip-tls-verify"):
        info["insecure-skip-tls-verify"] = True
    if authority:
        info["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
    extensions = {item.get("name"): item.get("extension") for item in cluster.fields.get("extensions") or []}
    return info | {"config": extensions.get(_EXEC_EXTENSION)}


@contextmanager
def _file(content: str) -> Iterator[str]:
    """Yield the path of a file with the content, which only this user can read. OpenSSL reads keys from files alone."""
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("key"), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            yield file.name


def _digest(path: Path) -> bytes | None:
    try:
        return digest_of(path.read_bytes())
    except OSError:
        return None
