"""Services that something else runs: one HTTP server whose paths answer as a test says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web


@dataclass
class Plant:
    """The services by id, and whether each is up. Change `up`; the agent's next probe sees it."""

    up: dict[str, bool]
    down_status: int = 503
    """What a service that is down answers."""
    port: int = 0

    def catalogue(self, period: float = 0.05) -> str:
        """An entry for each: observed, of a type that bears its name."""
        return "".join(
            f"- {{id: {name}, type: {name}, port: {self.port}, "
            f"observe: {{http: {{path: /{name}}}, periodSeconds: {period}}}}}\n"
            for name in self.up
        )

    async def answer(self, request: web.Request) -> web.Response:
        """One probe."""
        return web.Response(status=200 if self.up[request.path[1:]] else self.down_status)


@asynccontextmanager
async def plant(*names: str) -> AsyncIterator[Plant]:
    """A running plant in which everything is up."""
    made = Plant(dict.fromkeys(names, True))
    app = web.Application()
    app.router.add_get("/{name}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = int(runner.addresses[0][1])
    try:
        yield made
    finally:
        await runner.cleanup()
