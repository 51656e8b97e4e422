"""Watch of the custom resources, by kopf.

The only importer of kopf. Handlers pass the object on and must not decide.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from hotpool.api import meta
from hotpool.core.model import CUSTOM_KINDS, Kind
from hotpool.kube.client import Connection
from hotpool.kube.node_watch import OnObject
from hotpool.kube.watch_keeper import WATCH_SECONDS

_ERROR_BACKOFFS = tuple(1.0 for _ in range(100_000))
_INACTIVITY_SECONDS = 86_400.0
"""Never reached. kopf's limit cancels the task that reads, so in a stall of the loop it would end kopf: `watch_keeper`
closes silent watches instead, and kopf continues them from the last version without a list."""
_LIST_SECONDS = 60.0
"""Limit of a list, which is the API server's own."""
_LOGIN_SECONDS = 5.0
"""Shortest time between two sessions."""
_RECONNECT_SECONDS = 1.0
"""Pause before kopf lists all objects again."""


def registry(on_object: OnObject, connection: Connection) -> kopf.OperatorRegistry:
    """Return kopf's handlers: one for each kind, and the login with a session of our own connection."""
    handlers = kopf.OperatorRegistry()
    for kind in CUSTOM_KINDS:
        kopf.on.event(meta.GROUP, meta.VERSION, kind.value, registry=handlers, id=kind.value)(_handler(kind, on_object))

    kopf.on.login(registry=handlers)(_login(connection))

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.watching.server_timeout = WATCH_SECONDS
        settings.watching.inactivity_timeout = _INACTIVITY_SECONDS
        settings.watching.reconnect_backoff = _RECONNECT_SECONDS
        settings.networking.request_timeout = _LIST_SECONDS
        settings.networking.error_backoffs = _ERROR_BACKOFFS

    return handlers


def _handler(kind: Kind, on_object: OnObject) -> Callable[..., Any]:
    async def handle(event: Any, **_: Any) -> None:
        on_object(kind, event["type"], event["object"])

    return handle


def _login(connection: Connection) -> Callable[..., Awaitable[kopf.AiohttpSession]]:
    """Return a handler of kopf's logins: a new session, after a pause if the former one is recent.

    kopf closes a session after a 401, and asks for another one at once. The session sends the present credential and
    reads it again after a 401, so here only the pace is kept.
    """
    next_login = 0.0

    async def new_session(**_: Any) -> kopf.AiohttpSession:
        nonlocal next_login
        clock = asyncio.get_running_loop().time
        delay, next_login = next_login - clock(), max(clock(), next_login) + _LOGIN_SECONDS
        await asyncio.sleep(delay)
        return kopf.AiohttpSession(server=connection.login.current.server, aiohttp_session=connection.new_session())

    return new_session


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
        registry=handlers,
        namespaces=[namespace],
        standalone=True,
        # kopf's own value has the user's name, and OpenShift's users have none.
        identity="hotpool-operator",  # type: ignore[arg-type]
        ready_flag=ready,
        stop_flag=stop,
    )
    handle_signals()
    await kopf.run_tasks(tasks, ignored=existing)
