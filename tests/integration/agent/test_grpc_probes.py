"""Probes by the gRPC health checking protocol (requirement A5), of real gRPC servers."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support.probing import observe_spec, running_prober

from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober
from localfleet.ports import free_port

OK = ProbeResult(ok=True)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def prober(tmp_path: Path) -> AsyncIterator[Prober]:
    async with running_prober(tmp_path) as prober:
        yield prober


@contextmanager
def serving(address: str, servicer: Any = None) -> Iterator[int]:
    """Run a gRPC server, with this health service if one is given."""
    server = grpc.server(ThreadPoolExecutor(2))
    if servicer:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{address}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(10)


async def test_a_server_is_ready_only_while_it_is_serving(prober: Prober) -> None:
    servicer = health.HealthServicer()
    check, named = observe_spec({"grpc": {}}), observe_spec({"grpc": {"service": "asr"}})
    with serving("127.0.0.1", servicer) as port:
        target = f"grpc://127.0.0.1:{port}"
        assert await prober.probe(check, port) == OK
        unknown = await prober.probe(named, port)
        assert unknown.detail.startswith(f"{target} service asr: NOT_FOUND; [::1]:{port}: ")
        servicer.set("asr", SERVING)
        assert await prober.probe(named, port) == OK
        servicer.set("asr", NOT_SERVING)
        stopping = await prober.probe(named, port)
        assert stopping.detail.startswith(f"{target} service asr: NOT_SERVING; ")
        assert not stopping.absent
    gone = await prober.probe(check, port)
    assert (gone.ok, gone.absent) == (False, True)


async def test_a_server_on_the_other_loopback_address_is_found_without_a_proxy(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with serving("[::1]", health.HealthServicer()) as port:
        assert await prober.probe(observe_spec({"grpc": {"port": port}}), None) == OK


async def test_a_server_without_health_service_is_a_failure(prober: Prober) -> None:
    with serving("127.0.0.1") as port:
        result = await prober.probe(observe_spec({"grpc": {}}), port)
    assert f"grpc://127.0.0.1:{port}: UNIMPLEMENTED; " in result.detail


async def test_a_server_that_hangs_is_a_failure_at_the_time_limit(prober: Prober) -> None:
    released = Event()

    class Hanging(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no type
        def Check(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - as generated
            released.wait(60)
            return health_pb2.HealthCheckResponse(status=SERVING)

    with serving("127.0.0.1", Hanging()) as port:
        result = await prober.probe(observe_spec({"grpc": {}}, 0.3), port)
        released.set()
    assert result.detail.startswith(f"grpc://127.0.0.1:{port}: no answer in 0.3 s; ")
    assert not result.absent
