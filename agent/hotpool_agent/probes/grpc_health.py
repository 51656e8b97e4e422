"""Probe by the gRPC health checking protocol (requirement A5). I/O, any error is a failure.

The only module that knows gRPC, which is an extra and takes 20 MB of memory.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hotpool_agent.probes.http_tcp import ProbeResult, endpoint, one_line

_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 65536),
    # Otherwise channels to one address share their connection, and its pause after a failure.
    ("grpc.use_local_subchannel_pool", 1),
)
_SERVING: Final = "SERVING"


def name(address: str, port: int, service: str) -> str:
    """Return the probe's target, for messages."""
    return f"grpc://{endpoint(address, port)}" + (f" service {service}" if service else "")


async def check(address: str, port: int, service: str, seconds: float) -> ProbeResult:
    """Ask for the health of a service; the empty name is the whole server. Raises only cancellation."""
    target, family = name(address, port, service), "ipv6" if ":" in address else "ipv4"
    # A new connection for each probe: a kept one could lead to an ended process.
    channel = grpc.insecure_channel(f"{family}:{endpoint(address, port)}", options=_OPTIONS)
    try:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        response = await _response(stub.Check.future(request, timeout=seconds))
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ProbeResult(ok=False, detail=f"{target}: no answer in {seconds:g} s")
        return ProbeResult(ok=False, detail=f"{target}: {code.name}", volatile=one_line(error.details() or ""))
    finally:
        channel.close()
    status = _status(response.status)
    return ProbeResult(ok=True) if status == _SERVING else ProbeResult(ok=False, detail=f"{target}: {status}")


async def _response(call: Any) -> Any:
    """Return or raise the outcome of a call, which ends in a thread of gRPC. Cancellation cancels the call."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def ended(_: Any) -> None:
        with suppress(RuntimeError):  # The loop may be closed.
            loop.call_soon_threadsafe(done.set)

    call.add_done_callback(ended)
    try:
        await done.wait()
    finally:
        call.cancel()  # No effect after the end.
    return call.result()


def _status(number: int) -> str:
    try:
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(number))
    except ValueError:
        return f"status {number}"
