"""Errors between the agent and the API server, with messages that say what to check (B7, B9, B11): pure.

Every failure of a request or a watch becomes one of these classes. Must not retry or wait.
"""

import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from hotpool_agent.json_access import Json, mapping
from hotpool_agent.untrusted_text import parse_json, readable

_MESSAGE_MAX: Final = 1000
_BODY_MAX: Final = 200

_TRUST_HINT: Final = (
    "is not signed by an authority that this agent trusts; check certificate-authority(-data) in the kubeconfig, "
    "or ca.crt of the service account"
)
_NAME_HINT: Final = "is for another name; check `server` in the kubeconfig, or set tls-server-name"
_CERTIFICATE_HINTS: Final = {
    9: "is not valid yet; check this machine's clock",
    10: "has expired; renew it on the server, or check this machine's clock",
    18: _TRUST_HINT,
    19: _TRUST_HINT,
    20: _TRUST_HINT,
    21: _TRUST_HINT,
    62: _NAME_HINT,
    64: _NAME_HINT,
}
"""By OpenSSL's verification code (X509_V_ERR_*)."""
_PLAIN_TEXT_REASONS: Final = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}


class KubeError(Exception):
    """A failed request. `retry_after`: seconds that the server asked to wait."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(KubeError):
    """No response, or one that does not show whether the request took effect."""


class DeniedError(KubeError):
    """403."""


class UnauthorizedError(DeniedError):
    """401: the credential itself is invalid."""


class NotServedError(KubeError):
    """The CRDs or the namespace are missing."""


class BusyError(KubeError):
    """429."""


class ConflictError(KubeError):
    """409: another writer was first; the present object must be read."""


class MissingError(KubeError):
    """404: the object does not exist."""


class ExpiredError(KubeError):
    """410: the version to watch from is too old; the objects must be listed again."""


class StaleError(KubeError):
    """The API server holds a newer report, or one of another session (requirement B7)."""


class RejectedError(KubeError):
    """The object violates the schema, or is too large."""


def kube_error(status: int, body: str, headers: Mapping[str, str]) -> KubeError:
    """Return the error for a response of the API server, or of a proxy before it."""
    details, message = _parse_status(status, body)
    retry_after = _retry_after(headers)
    match status:
        case 401:
            return UnauthorizedError(
                f"401: the API server rejects this agent's credential: {message}; "
                "its token or client certificate may have expired or been revoked"
            )
        case 403:
            return DeniedError(_forbidden_message(message))
        case 404:
            return _not_found(details, message)
        case 407:
            return UnavailableError("407: the proxy requires a user name and password; add them to the proxy's address")
        case 409:
            return ConflictError(f"409: {message}", retry_after)
        case 410:
            return ExpiredError(f"410: {message}")
        case 400 | 413 | 422:
            return _rejected(status, message)
        case 429:
            return BusyError(f"429: the API server is busy: {message}", retry_after)
    return UnavailableError(f"{status}: {message}", retry_after)


def _rejected(status: int, message: str) -> KubeError:
    if status == 413:  # noqa: PLR2004 - HTTP's own number
        return RejectedError(f"413: the report is too large for the API server, or for a proxy before it: {message}")
    if status == 422 and "stale report" in message:  # noqa: PLR2004 - as above
        return StaleError(message)
    return RejectedError(f"{status}: {message}")


def internal_error(error: Exception) -> str:
    """Return the text for an error that nothing expects, and that must not end the agent."""
    return f"internal error: {type(error).__name__}: {readable(str(error), _BODY_MAX)}"


def unreachable(error: Exception, seconds: float) -> UnavailableError:
    """Return the error for a request without a usable response within `seconds`."""
    if isinstance(error, TimeoutError):
        return UnavailableError(f"cannot reach the API server: no response in {seconds:g} s")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        hint = "its user name and password" if error.status == 407 else "proxy-url or HTTPS_PROXY"  # noqa: PLR2004
        return UnavailableError(f"cannot reach the API server: the proxy returns {error.status}; check {hint}")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return UnavailableError(f"cannot reach the proxy: {error}; check proxy-url or HTTPS_PROXY")
    # Some aiohttp errors are subclasses of SSLError, but lack its details.
    tls = [
        cause
        for cause in _causes(error)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, aiohttp.ClientError)
    ]
    if tls:
        return UnavailableError(f"cannot reach the API server: TLS: {_tls_message(tls[0])}")
    return UnavailableError(f"cannot reach the API server: {str(error) or type(error).__name__}")


def _parse_status(status: int, body: str) -> tuple[Json, str]:
    try:
        details = parse_json(body)
        return details, readable(str(details["message"]), _MESSAGE_MAX)
    except (ValueError, KeyError, TypeError):
        return {}, readable(body.strip(), _BODY_MAX) or f"HTTP {status}"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return Retry-After in seconds. A date is compared with the server's own clock if the response has a Date."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _forbidden_message(message: str) -> str:
    if "system:anonymous" in message:
        return f"403: no credential was sent: {message}; check the context's user in the kubeconfig"
    if "ValidatingAdmissionPolicy" in message:
        return f"403: {message}; check that --node is the node of this agent's account, or of its pod"
    return f"403: {message}; check the Role of this node's account"


def _not_found(details: Json, message: str) -> KubeError:
    resource = mapping(details.get("details"))
    if resource.get("kind") == "namespaces":
        return NotServedError(f"404: {message}; create the namespace")
    if resource.get("name"):
        return MissingError(f"404: {message}")
    return NotServedError("404: the API server does not serve NodeCapability; apply the CRDs (crds/*.yaml)")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _tls_message(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _CERTIFICATE_HINTS.get(error.verify_code, "is not accepted")
        return f"the API server's certificate {hint} ({error.verify_message})"
    reason = error.reason or str(error)
    if reason in _PLAIN_TEXT_REASONS:
        return "the server does not use TLS; check the scheme and port of `server` in the kubeconfig"
    if "ALERT" in reason:
        return f"the server rejects this agent's client certificate ({reason}); check client-certificate and client-key"
    return reason
