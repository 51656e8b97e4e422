"""Requests of `hotpool.kube.rest` to an API server, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from hotpool.kube.rest import APPLY, CONNECTION_ERRORS, error_text, path, request


@dataclass
class Server:
    """Answers every request with `answer`, and records all requests."""

    answer: web.Response = field(default_factory=lambda: web.json_response({"kind": "Ok"}))
    requests: list[tuple[str, str, dict[str, str], str | None, Any]] = field(default_factory=list)
    """Method, quoted path, query, content type and body."""
    silent: bool = False

    async def handle(self, received: web.Request) -> web.Response:
        content = received.headers.get("Content-Type"), await received.text()
        self.requests.append((received.method, received.raw_path.partition("?")[0], dict(received.query), *content))
        if self.silent:
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[ApiClient]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    async with TestServer(app) as running:
        configuration = Configuration(host=str(running.make_url("/")).rstrip("/"))
        configuration.api_key["BearerToken"] = "Bearer secret"
        async with ApiClient(configuration) as client:
            yield client


def test_the_core_group_has_its_own_root_and_names_are_quoted() -> None:
    assert path("v1", "nodes") == "/api/v1/nodes"
    assert path("a.b/v1", "namespaces", "x", "things", "../y?z") == "/apis/a.b/v1/namespaces/x/things/..%2Fy%3Fz"


async def test_a_request_reaches_the_server_unchanged(server: Server, api: ApiClient) -> None:
    query = {"fieldManager": "me", "labelSelector": "a=b,c"}
    pod = path("v1", "pods", "a/b")
    found = await request(api, "PATCH", pod, query=query, body={"k": [1]}, content_type=APPLY, seconds=5)
    assert found == {"kind": "Ok"}
    assert server.requests == [("PATCH", "/api/v1/pods/a%2Fb", query, APPLY, '{"k": [1]}')]


async def test_a_deletion_without_preconditions_still_has_a_body(server: Server, api: ApiClient) -> None:
    await request(api, "DELETE", path("v1", "pods", "a"), body={}, seconds=5)
    assert server.requests[0][3:] == ("application/json", "{}")


async def test_a_refusal_has_its_status_and_the_message_of_the_server(server: Server, api: ApiClient) -> None:
    server.answer = web.json_response({"kind": "Status", "message": "not you"}, status=403)
    with pytest.raises(ApiException) as raised:
        await request(api, "GET", "/x", seconds=5)
    assert (raised.value.status, error_text(raised.value)) == (403, "403 Forbidden: not you")


async def test_a_response_that_is_not_json_counts_as_a_connection_error(server: Server, api: ApiClient) -> None:
    server.answer = web.Response(text="<html>a proxy</html>", content_type="text/html")
    with pytest.raises(CONNECTION_ERRORS, match="not JSON"):
        await request(api, "GET", "/x", seconds=5)


async def test_a_request_has_a_time_out(server: Server, api: ApiClient) -> None:
    server.silent = True
    with pytest.raises(CONNECTION_ERRORS) as raised:
        await request(api, "GET", "/x", seconds=0.05)
    assert isinstance(raised.value, TimeoutError)
