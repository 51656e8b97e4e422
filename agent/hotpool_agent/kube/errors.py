"""What goes wrong between the agent and the API server, in words that say what to check (B7, B9, B11): pure.

`publish` makes one of these errors of every failure; `reporter`, `heartbeat` and `own_watch` decide by their class.
Must not retry or wait.
"""

import json
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

Json = dict[str, Any]

_TRUST: Final = (
    "is not signed by an authority that this agent trusts; check certificate-authority(-data) in the kubeconfig, "
    "or ca.crt of the service account"
)
_NAME: Final = "is for another name; check `server` in the kubeconfig, or set tls-server-name"
_CERTIFICATE: Final = {
    9: "is not valid yet; check this machine's clock",
    10: "has expired; renew it on the server, or check this machine's clock",
    18: _TRUST,
    19: _TRUST,
    20: _TRUST,
    21: _TRUST,
    62: _NAME,
    64: _NAME,
}
"""By OpenSSL's verification code (X509_V_ERR_*)."""
_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}


class KubeError(Exception):
    """A request that did not succeed. `pause`: seconds that the server asked to wait."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class UnavailableError(KubeError):
    """No answer, or one that does not say whether the request took effect."""


class DeniedError(KubeError):
    """403."""


class UnauthorizedError(DeniedError):
    """401: the credential itself is not accepted."""


class NotServedError(KubeError):
    """The CRDs or the namespace are missing."""


class BusyError(KubeError):
    """429."""


class ConflictError(KubeError):
    """409: somebody else wrote at the same time; what holds now must be read."""


class MissingError(KubeError):
    """The object is not there."""


class ExpiredError(KubeError):
    """410: the version to watch from is too old; what holds now must be listed."""


class StaleError(KubeError):
    """The API server holds a newer report, or one of another session (requirement B7)."""


class RejectedError(KubeError):
    """The object breaks the schema, or is too large."""


def kube_error(status: int, body: str, headers: Mapping[str, str]) -> KubeError:
    """The error that an answer of the API server, or of a proxy before it, stands for."""
    details, message = _parsed(status, body)
    pause = _pause(headers)
    match status:
        case 401:
            return UnauthorizedError(
                f"401: the API server refuses this agent's credential: {message}; "
                "its token or client certificate may have expired or been revoked"
            )
        case 403:
            return DeniedError(_forbidden(message))
        case 404:
            return _not_found(details, message)
        case 407:
            return UnavailableError("407: the proxy asks for a user name and password; check the proxy's address")
        case 409:
            return ConflictError(f"409: {message}", pause)
        case 410:
            return ExpiredError(f"410: {message}")
        case 400 | 413 | 422:
            return _refused(status, message)
        case 429:
            return BusyError(f"429: the API server is busy: {message}", pause)
    return UnavailableError(f"{status}: {message}", pause)


def _refused(status: int, message: str) -> KubeError:
    if status == 413:  # noqa: PLR2004 - HTTP's own number
        return RejectedError(f"413: the API server, or a proxy before it, finds the report too large: {message}")
    if status == 422 and "stale report" in message:  # noqa: PLR2004 - as above
        return StaleError(message)
    return RejectedError(f"{status}: {message}")


def unreachable(error: Exception, seconds: float) -> UnavailableError:
    """The error that a request without a usable answer stands for."""
    if isinstance(error, TimeoutError):
        return UnavailableError(f"cannot reach the API server: no answer in {seconds:g} s")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        hint = "its user name and password" if error.status == 407 else "proxy-url or HTTPS_PROXY"  # noqa: PLR2004
        return UnavailableError(f"cannot reach the API server: the proxy answers {error.status}; check {hint}")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return UnavailableError(f"cannot reach the proxy: {error}; check proxy-url or HTTPS_PROXY")
    # aiohttp's own errors pass for SSL errors, too, but have none of their details.
    tls = [
        cause
        for cause in _causes(error)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, aiohttp.ClientError)
    ]
    if tls:
        return UnavailableError(f"cannot reach the API server: TLS: {_tls(tls[0])}")
    return UnavailableError(f"cannot reach the API server: {str(error) or type(error).__name__}")


def _parsed(status: int, body: str) -> tuple[Json, str]:
    try:
        details = json.loads(body)
        return details, str(details["message"])
    except (ValueError, KeyError, TypeError):
        return {}, body.strip()[:200] or f"HTTP {status}"


def _pause(headers: Mapping[str, str]) -> float:
    """Retry-After, in seconds or as a date, which is compared with the server's own clock where it states it."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _forbidden(message: str) -> str:
    if "system:anonymous" in message:
        return f"403: no credential was sent: {message}; check the context's user in the kubeconfig"
    if "ValidatingAdmissionPolicy" in message:
        return f"403: {message}; is --node the node of this agent's account, or of its pod?"
    return f"403: {message}; check the Role of this node's account"


def _not_found(details: Json, message: str) -> KubeError:
    about = details.get("details") or {}
    if about.get("kind") == "namespaces":
        return NotServedError(f"404: {message}; create the namespace")
    if about.get("name"):
        return MissingError(f"404: {message}")
    return NotServedError("404: the API server does not know NodeCapability; apply the CRDs (crds/*.yaml)")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _CERTIFICATE.get(error.verify_code, "is not accepted")
        return f"the API server's certificate {words} ({error.verify_message})"
    reason = error.reason or str(error)
    if reason in _NO_TLS:
        return "no TLS is spoken there; check the scheme and port of `server` in the kubeconfig"
    if "ALERT" in reason:
        return f"the server refuses this agent's client certificate ({reason}); check client-certificate and client-key"
    return reason
