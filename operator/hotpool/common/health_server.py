"""HTTP server of /healthz, /readyz and /metrics on one port. Must not serve or change anything else."""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Checks = Callable[[], Mapping[str, str]]
"""Returns check name → problem, empty if the check passes."""


async def serve(listen: str, registry: CollectorRegistry, ready: Checks) -> web.AppRunner:
    """Listen on `host:port` (`*`: all addresses). /readyz returns 200 if all checks pass, else 503; a line for each."""
    app = web.Application()

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        checks = ready()
        text = "".join(f"[-] {name}: {problem}\n" if problem else f"[+] {name}\n" for name, problem in checks.items())
        return web.Response(text=text, status=503 if any(checks.values()) else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    await web.TCPSite(runner, None if host == "*" else host.strip("[]"), int(port)).start()
    return runner
