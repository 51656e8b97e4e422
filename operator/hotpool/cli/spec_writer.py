"""Changes of the spec of one object by a command, without losing the change of another client."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from hotpool.api.meta import API_VERSION
from hotpool.cli.options import CommandError
from hotpool.cli.query import SINGULAR, find
from hotpool.common import exit_codes
from hotpool.core.model import Kind
from hotpool.kube.client import ApiUnavailable, Connection, asked
from hotpool.kube.reader import READ_TIMEOUT, Reader
from hotpool.kube.rest import MERGE, path, request

Json = Mapping[str, Any]

_CONFLICT: Final = 409
_ATTEMPTS: Final = 5
"""A report of the node between read and write is a conflict, too."""


async def update_spec(
    connection: Connection, namespace: str, kind: Kind, name: str, change: Callable[[Json], Json | None]
) -> bool:
    """Write the fields of the spec that `change` returns for an object; None: none. Return True if it was written.

    The API server refuses the write if the object changed meanwhile; it is then read again. Raises ApiUnavailable, and
    CommandError if the object does not exist or changes all the time.
    """
    reader = Reader(connection.api, namespace)
    for _ in range(_ATTEMPTS):
        body = await find(reader, kind, name, namespace)
        fields = change(body)
        if fields is None:
            return False
        version = {"resourceVersion": body["metadata"]["resourceVersion"]}
        try:
            await patch_spec(connection, namespace, kind, body["metadata"]["name"], version, fields)
        except ApiUnavailable as error:
            if error.status != _CONFLICT:
                raise
        else:
            return True
    raise CommandError(f"{SINGULAR[kind]} {name} changes all the time: try again", exit_codes.UNAVAILABLE)


async def patch_spec(
    connection: Connection, namespace: str, kind: Kind, name: str, only_if: Mapping[str, str], fields: Json
) -> None:
    """Write fields of the spec of an object. `only_if`: uid or version that it must have. Raises ApiUnavailable."""
    url_path = path(API_VERSION, "namespaces", namespace, kind.value, name)
    patch = {"metadata": dict(only_if), "spec": dict(fields)}
    pending = request(connection.api, "PATCH", url_path, body=patch, content_type=MERGE, seconds=READ_TIMEOUT)
    await asked(pending, "patch", f"{kind.value}/{name}")
