"""Services that the agent only observes: one HTTP server with a path for each, up or down as a test sets."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web


@dataclass
class HttpServices:
    """Services by id; `up`: the state of each, which the agent's next probe finds."""

    up: dict[str, bool]
    down_status: int = 503
    """HTTP status of a service that is down."""
    port: int = 0

    def catalogue(self, period: float = 0.05) -> str:
        """Return a catalogue entry for each: observed, of a type with its name."""
        return "".join(
            f"- {{id: {name}, type: {name}, port: {self.port}, "
            f"observe: {{http: {{path: /{name}}}, periodSeconds: {period}}}}}\n"
            for name in self.up
        )

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one probe."""
        return web.Response(status=200 if self.up[request.path[1:]] else self.down_status)


async def serve(stack: AsyncExitStack, app: web.Application) -> int:
    """Serve an application on loopback until the end of the stack. Return the port."""
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


@asynccontextmanager
async def http_services(*names: str) -> AsyncIterator[HttpServices]:
    """Run the server with these services, all up."""
    services = HttpServices(dict.fromkeys(names, True))
    app = web.Application()
    app.router.add_get("/{name}", services.answer)
    async with AsyncExitStack() as stack:
        services.port = await serve(stack, app)
        yield services
