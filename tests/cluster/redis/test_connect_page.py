"""The program of docs/how-to/connect.md: a request by HTTP, WebSocket, gRPC and TCP to what a pick returned (E6)."""

from __future__ import annotations

import ast
import asyncio
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support import http_services
from tests.support.redis_fixture_lookup import claimed_writer
from tests.support.redis_page import DOCS

from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices
from localfleet.ports import free_port

if TYPE_CHECKING:
    import pytest

    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

PAGE = (DOCS / "how-to" / "connect.md").read_text(encoding="utf-8")
PROGRAM: str = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
PROTOCOLS = ("http", "websocket", "grpc_call", "tcp")


async def speak(request: web.Request) -> web.Response:
    return web.Response(text=f"spoken {await request.text()}")


async def stream(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(f"heard {await socket.receive_str()}")
    await socket.close()
    return socket


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"read " + await reader.readline())
    writer.close()


async def serve_http(stack: AsyncExitStack) -> int:
    """Serve /speak and the WebSocket /stream. Return the port."""
    app = web.Application()
    app.add_routes([web.post("/speak", speak), web.get("/stream", stream)])
    return await http_services.serve(stack, app)


async def serve_grpc(stack: AsyncExitStack) -> int:
    """Serve the gRPC health protocol. Return the port."""
    server, port = grpc.aio.server(), free_port()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return port


def test_each_request_has_at_most_five_lines() -> None:
    lengths = {
        found.name: (found.body[-1].end_lineno or 0) - found.body[0].lineno + 1
        for found in ast.parse(PROGRAM).body
        if isinstance(found, ast.AsyncFunctionDef)
    }
    assert {name: lengths[name] <= 5 for name in PROTOCOLS} == dict.fromkeys(PROTOCOLS, True)


async def test_the_program_gets_an_answer_by_each_protocol(
    server: RedisServer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = await claimed_writer(client)
    async with AsyncExitStack() as stack:
        web_port, grpc_port, tcp_port = await serve_http(stack), await serve_grpc(stack), free_port()
        await stack.enter_async_context(await asyncio.start_server(echo, "127.0.0.1", tcp_port))
        ports = {"tts": web_port, "asr": web_port, "nmt": grpc_port, "llm": tcp_port}
        members = frozenset({"edge-1"}), frozenset[str](), frozenset[str]()
        pool = PoolDocument("zh-en", "u1", None, None, *members, services=PoolServices(tuple(sorted(ports))))
        await writer.replace_pool(pool)
        endpoints = " ".join(f"{type_}|s-{type_}|{port}||127.0.0.1" for type_, port in ports.items())
        await writer.replace_node(NodeDocument("edge-1", (), endpoints))
        await writer.stamp(complete=True)
        names: dict[str, Any] = {"__name__": "dispatcher"}
        exec(PROGRAM, names)  # noqa: S102 - our own page.
        await names["main"](server.url)
    serving = int(health_pb2.HealthCheckResponse.SERVING)
    assert capsys.readouterr().out == f"spoken hello heard hello\n{serving} b'read hello\\n'\n"
