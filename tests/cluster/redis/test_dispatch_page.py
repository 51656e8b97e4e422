"""The program of docs/how-to/dispatch.md, run against a node that is dead, one that fails and one that works (E8)."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from aiohttp import web
from tests.support import http_services
from tests.support.failure_fleet import ejected
from tests.support.redis_fixture_lookup import claimed_writer, load_key_sizes
from tests.support.redis_page import DOCS

from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices
from localfleet.ports import free_port

if TYPE_CHECKING:
    import pytest

    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

PAGE = (DOCS / "how-to" / "dispatch.md").read_text(encoding="utf-8")
PROGRAM: str = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]


async def serve(stack: AsyncExitStack, status: int) -> int:
    """Serve this response. Return the port."""

    async def transcribe(request: web.Request) -> web.Response:
        return web.Response(status=status, body=b"heard " + await request.read())

    app = web.Application()
    app.router.add_post("/transcribe", transcribe)
    return await http_services.serve(stack, app)


def test_the_program_has_at_most_30_lines_of_code() -> None:
    body = PROGRAM.split("async def transcribe")[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 30


async def test_the_program_finds_the_node_that_works_and_reports_the_others(
    server: RedisServer, client: Client, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    writer = await claimed_writer(client)
    async with AsyncExitStack() as stack:
        ports = {"dead": free_port(), "failing": await serve(stack, 500), "working": await serve(stack, 200)}
        members = frozenset(ports), frozenset[str](), frozenset[str]()
        await writer.replace_pool(PoolDocument("zh-en", "u1", None, None, *members, services=PoolServices(("asr",))))
        for name, port in ports.items():
            await writer.replace_node(NodeDocument(name, (), f"asr|fw|{port}|http|127.0.0.1"))
        await writer.stamp(complete=True)
        names: dict[str, Any] = {"__name__": "dispatcher"}
        exec(PROGRAM, names)  # noqa: S102 - our own page.
        for number in range(30):
            await names["main"](server.url, b"%d" % number)
    assert capsysbinary.readouterr().out == b"".join(b"heard %d" % number for number in range(30))
    assert await ejected(client) == {"dead", "failing"}
    assert await load_key_sizes(client) == (0, 0, 0)
