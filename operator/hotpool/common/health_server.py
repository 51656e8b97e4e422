"""HTTP endpoints /healthz, /readyz and /metrics on one port, for systemd, a kubelet and Prometheus.

Serves nothing else and changes nothing.
"""

import errno
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from hotpool.common.listen_address import host_and_port

Check = Callable[[], tuple[bool, str | dict[str, Any]]]
"""Returns False for status 503, and the body: text, or an object that is sent as JSON."""


class ListenError(Exception):
    """The address cannot be listened on; the message names the cause and the option."""


@asynccontextmanager
async def serving(
    listen: str,
    registry: CollectorRegistry,
    *,
    healthz: Check,
    readyz: Check,
    port_owner: Callable[[int], str] = lambda _: "another process",
) -> AsyncIterator[str]:
    """Serve within the block; yield the address with the real port. Raises ListenError."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", _handler(healthz))
    app.router.add_get("/readyz", _handler(readyz))
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        host, port = host_and_port(listen)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            if error.errno == errno.EADDRINUSE:
                reason = f"the port is taken by {port_owner(port)}"
            text = f"cannot serve /metrics and /healthz on {listen}: {reason}. Choose another address with --listen"
            raise ListenError(text) from error
        bound = runner.addresses[0]
        yield f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()


def _handler(check: Check) -> Callable[[web.Request], Any]:
    async def handle(_: web.Request) -> web.Response:
        passed, body = check()
        status = 200 if passed else 503
        return (
            web.Response(text=body, status=status) if isinstance(body, str) else web.json_response(body, status=status)
        )

    return handle


def check_lines(errors: Mapping[str, str]) -> tuple[bool, str]:
    """Return a line for each check, as kube-apiserver's /readyz does. `errors`: name → error, empty if it passed."""
    lines = (f"[-] {name}: {error}\n" if error else f"[+] {name}\n" for name, error in errors.items())
    return not any(errors.values()), "".join(lines)
