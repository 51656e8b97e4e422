"""Requests to the API server, with the session and credentials of the Kubernetes client. Must not retry.

They replace the generated API classes, of which CoreV1Api alone takes 0.6 s and 25 MB to import.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

APPLY: Final = "application/apply-patch+yaml"
JSON_PATCH: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
CONNECTION_ERRORS: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""Errors of a request to an API server that cannot be reached or does not respond in time."""
_FIRST_ERROR_STATUS: Final = 400


class WireMetadata(msgspec.Struct):
    """Identity of an object, as the API server sends it."""

    name: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815 - the wire's name.


class WireObject(msgspec.Struct):
    """An object of any kind. A subclass adds the fields that are read."""

    metadata: WireMetadata = msgspec.field(default_factory=WireMetadata)


def path(group_version: str, *parts: str) -> str:
    """Return the path of a resource, for example of ("apps/v1", "namespaces", "x", "deployments")."""
    root = "/apis" if "/" in group_version else "/api"
    return "/".join([root, group_version, *(quote(part, safe="") for part in parts)])


async def request(
    api: ApiClient,
    method: str,
    url_path: str,
    *,
    query: Mapping[str, str] = _NOTHING,
    body: Any = None,
    content_type: str = "application/json",
    accept: str = "application/json",
    seconds: float,
    decode: Callable[[bytes], Any] = msgspec.json.decode,
) -> Any:
    """Return the decoded JSON of a successful request. Raise ApiException for an unsuccessful one, else as `send`."""
    response = await read(
        await send(
            api, method, url_path, query=query, body=body, content_type=content_type, accept=accept, seconds=seconds
        )
    )
    try:
        return decode(response)
    except msgspec.ValidationError as error:
        raise aiohttp.ClientPayloadError(f"the response is not an object of this kind: {error}") from None
    except msgspec.DecodeError:
        raise aiohttp.ClientPayloadError("the response is not JSON") from None


async def send(
    api: ApiClient,
    method: str,
    url_path: str,
    *,
    query: Mapping[str, str] = _NOTHING,
    body: Any = None,
    content_type: str = "application/json",
    accept: str = "application/json",
    seconds: float,
) -> aiohttp.ClientResponse:
    """Return the response of any status before its body is read. Raise one of CONNECTION_ERRORS without a response.

    `seconds`: the time-out, which includes the reading of the body.
    """
    headers = {"Accept": accept, "Content-Type": content_type}
    # The body bypasses param_serialize, which would copy it deeply.
    _, url, headers, _, _ = await api.param_serialize(
        method, url_path, query_params=list(query.items()), header_params=headers
    )
    wrapped = await api.call_api(method, url, headers, body, _request_timeout=seconds)
    response: aiohttp.ClientResponse = wrapped.response
    return response


async def read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of a successful response. Raise ApiException for an unsuccessful one."""
    body = await response.read()
    if response.status >= _FIRST_ERROR_STATUS:
        raise ApiException(status=response.status, reason=response.reason, body=body.decode(errors="replace"))
    return body


def error_text(error: BaseException) -> str:
    """Return one line for people: status and message of the API server, or the connection error."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}: {_message(error.body)[:500]}"
    return f"{type(error).__name__}: {error}"


def _message(body: Any) -> str:
    """Return the message of a Status object, else the body itself."""
    text = body if isinstance(body, str) else ""
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(text)["message"])
    return text.strip()
