"""Watch of the custom resources, by kopf.

The only importer of kopf. Handlers pass the object on and must not decide.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import kopf
from kubernetes.aio import client

from hotpool.api import meta
from hotpool.core.model import CUSTOM_KINDS, Kind

OnObject = Callable[[Kind, str | None, Any], None]
"""Callback with kind, event type (None: part of the first listing; ADDED, MODIFIED, DELETED) and the object."""

_ERROR_BACKOFFS = tuple(1.0 for _ in range(100_000))
_INACTIVITY_SECONDS = 300.0
_RECONNECT_SECONDS = 1.0
"""Pause after each watch. kopf lists all objects again before the next one."""


def registry(on_object: OnObject, settings: client.Configuration) -> kopf.OperatorRegistry:
    """Return kopf's handlers: one for each kind, and the login with the credentials of our own client."""
    handlers = kopf.OperatorRegistry()
    for kind in CUSTOM_KINDS:
        kopf.on.event(meta.GROUP, meta.VERSION, kind.value, registry=handlers, id=kind.value)(_handler(kind, on_object))

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return _connection(settings)

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.watching.inactivity_timeout = _INACTIVITY_SECONDS
        settings.watching.reconnect_backoff = _RECONNECT_SECONDS
        settings.networking.error_backoffs = _ERROR_BACKOFFS

    return handlers


def _handler(kind: Kind, on_object: OnObject) -> Callable[..., Any]:
    async def handle(event: Any, **_: Any) -> None:
        on_object(kind, event["type"], event["object"])

    return handle


def _connection(settings: client.Configuration) -> kopf.ConnectionInfo:
    scheme, _, token = (settings.api_key.get("BearerToken") or settings.api_key.get("authorization") or "").partition(
        " "
    )
    return kopf.ConnectionInfo(
        server=settings.host,
        ca_path=settings.ssl_ca_cert,
        insecure=not settings.verify_ssl,
        scheme=scheme if token else None,
        token=token or scheme or None,
        certificate_path=settings.cert_file,
        private_key_path=settings.key_file,
    )


async def watch(
    handlers: kopf.OperatorRegistry,
    namespace: str,
    *,
    handle_signals: Callable[[], None],
    ready: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Run kopf until `stop`. It cancels tasks created after its start, so create those that outlive it before.

    `handle_signals` is called again, because kopf installs signal handlers of its own.
    """
    existing = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=handlers, namespaces=[namespace], standalone=True, ready_flag=ready, stop_flag=stop
    )
    handle_signals()
    await kopf.run_tasks(tasks, ignored=existing)
