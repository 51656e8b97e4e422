"""/healthz, /readyz and /metrics on one port, for systemd, a kubelet and Prometheus. I/O.

Serves nothing else and changes nothing.
"""

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from hotpool_agent.services import ports
from hotpool_agent.settings import host_and_port


@dataclass(frozen=True, slots=True)
class Health:
    """How the agent is: whether the API server holds the present report, and what is wrong, by part."""

    ready: bool
    problems: dict[str, str]


class ListenError(Exception):
    """The address cannot be listened on; the message says what to do."""


@asynccontextmanager
async def serving(listen: str, registry: CollectorRegistry, health: Callable[[], Health]) -> AsyncIterator[str]:
    """Serve at the address within the block; gives the address with the real port. Raises ListenError."""
    runner = web.AppRunner(_application(registry, health), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        host, port = host_and_port(listen)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ListenError(_error_text(listen, port, error)) from error
        bound = runner.addresses[0]
        yield f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()


def _application(registry: CollectorRegistry, health: Callable[[], Health]) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        # That it answers shows that the event loop runs; troubles with the cluster are no reason to kill the agent.
        return web.json_response({"problems": health().problems})

    async def readyz(_: web.Request) -> web.Response:
        now = health()
        return web.json_response({"ready": now.ready, "problems": now.problems}, status=200 if now.ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


def _error_text(listen: str, port: int, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EADDRINUSE:
        reason = f"the port is taken by {ports.owner(port)}"
    return (
        f"cannot serve /metrics and /healthz on {listen}: {reason}. Choose another address with --listen or "
        "HOTPOOL_AGENT_LISTEN; 127.0.0.1:0 takes any free port, which `hotpool-agent status` shows"
    )
