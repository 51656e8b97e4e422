"""From a start to a connection (requirements B13, E7): real services, agents, API server, operator and Redis.

Services and agents run in a network namespace of the test's own, so that their addresses are those of no machine.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import pytest
import yaml
from tests.support.fleet_objects import pool
from tests.support.own_network import run_in_own_network

from hotpool.lookup import Endpoint, Lookup, NoMember, Picked, PickOptions
from localfleet import catalogue
from localfleet.catalogue import SERVICE
from localfleet.fleet import Fleet
from localfleet.ports import free_port

V4, V6 = "10.9.0.7", "fd00:9::7"
ADDRESSES = f"{V4}/32", f"{V6}/128"
TYPES = {"asr": "whisper", "nmt": "m2m100", "tts": "piper", "semantic": "repair", "gesture": "own"}
FAMILIES: Final[Sequence[tuple[Literal[4, 6], str]]] = ((4, V4), (6, V6))
SECONDS = 60.0
DISCOVERED = ("env", "-u", "HOTPOOL_AGENT_ADVERTISE")
"""Words that let an agent find the addresses of its network namespace."""


def service(id_: str, type_: str, port: int | None = None, **more: Any) -> dict[str, Any]:
    """Return a service that listens on all addresses, IPv4 and IPv6."""
    port = port or free_port()
    command = [sys.executable, str(SERVICE), "--host", "::", "--port", str(port), "--type", id_]
    return catalogue.service(id_, type_, port=port, run={"command": command}, **more)


def ports_of(fleet: Fleet) -> tuple[int, ...]:
    """Return the ports of the API server and of Redis."""
    server = yaml.safe_load(Path(fleet.admin).read_text())["clusters"][0]["cluster"]["server"]
    return tuple(port for url in (server, fleet.redis_url) if (port := urlsplit(url).port))


class Client:
    """A client in the network of the services, which knows Redis only."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def picked(self, name: str, type_: str, family: Literal[4, 6] | None = None) -> Endpoint:
        """Return the endpoint of a pick, as soon as there is one."""
        wanted: PickOptions = {"types": [type_]}
        if family:
            wanted["family"] = family
        deadline = time.monotonic() + SECONDS
        while not isinstance(found := await self._lookup.pick(name, **wanted), Picked):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.02)
        return found.endpoints[type_][0]

    async def none(self, name: str, type_: str) -> None:
        """Wait until no pick has an endpoint."""
        async with asyncio.timeout(SECONDS):
            while not isinstance(await self._lookup.pick(name, types=[type_]), NoMember):  # noqa: ASYNC110 - Redis
                await asyncio.sleep(0.02)


async def answer(endpoint: Endpoint) -> str:
    """Connect to an endpoint; return the id of the service that answers."""
    reader, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return text.rpartition("\n")[2]


def start(fleet: Fleet, services: Sequence[dict[str, Any]]) -> None:
    """Start the agent in the network of the calling thread."""
    fleet.start_agent("edge-1", services, debounce=0.2, inside=DISCOVERED)


def lead(fleet: Fleet, *pools: dict[str, Any]) -> None:
    """Apply pools and start the operator."""
    fleet.apply(*pools)
    fleet.start_operator()
    fleet.wait_leading()


def test_each_type_is_reached_where_a_pick_says_until_it_stops_and_after_it_has_moved(
    fleet: Fleet, request: pytest.FixtureRequest
) -> None:
    lead(fleet, *(pool(type_, types=[{"type": type_}], endpoint="Required") for type_ in TYPES))

    async def scenario() -> None:
        services = {type_: service(id_, type_) for type_, id_ in TYPES.items()}
        start(fleet, [*services.values()])
        async with Lookup.from_url(fleet.redis_url, namespace=fleet.namespace) as lookup:
            client = Client(lookup)
            for type_, id_ in TYPES.items():
                for family, address in FAMILIES:
                    found = await client.picked(type_, type_, family=family)
                    assert (found.address, found.port, await answer(found)) == (address, services[type_]["port"], id_)
            for type_, id_ in TYPES.items():
                await asyncio.to_thread(fleet.agent, "edge-1", "stop", id_)
                await client.none(type_, type_)
                await asyncio.to_thread(fleet.agent, "edge-1", "start", id_)
                assert await answer(await client.picked(type_, type_)) == id_
            before = services["asr"]["port"]
            services["asr"] = service("whisper", "asr")
            fleet.write_catalogue("edge-1", [*services.values()])
            await asyncio.to_thread(fleet.agent, "edge-1", "reload")
            async with asyncio.timeout(SECONDS):
                while (found := await client.picked("asr", "asr")).port == before:  # noqa: ASYNC110 - Redis
                    await asyncio.sleep(0.02)
            assert (found.port, await answer(found)) == (services["asr"]["port"], "whisper")
            picks = [(await client.picked("asr", "asr")).port for _ in range(50)]
            assert set(picks) == {services["asr"]["port"]}

    run_in_own_network(request, scenario, *ADDRESSES, ports=ports_of(fleet))


def test_of_two_services_of_a_type_each_pool_answers_with_its_own_port(
    fleet: Fleet, request: pytest.FixtureRequest
) -> None:
    models = {"qwen": "qwen-3", "llama": "llama-4"}

    def of(model: str) -> dict[str, Any]:
        return pool(model, types=[{"type": "llm", "attributes": [{"key": "model", "anyOf": [model]}]}])

    lead(fleet, *map(of, models.values()))

    async def scenario() -> None:
        services = {id_: service(id_, "llm", model=model) for id_, model in models.items()}
        start(fleet, [*services.values()])
        async with Lookup.from_url(fleet.redis_url, namespace=fleet.namespace) as lookup:
            client = Client(lookup)
            for id_, model in models.items():
                found = [await client.picked(model, "llm") for _ in range(20)]
                assert {(one.service, one.port) for one in found} == {(id_, services[id_]["port"])}
                assert await answer(found[0]) == id_

    run_in_own_network(request, scenario, *ADDRESSES, ports=ports_of(fleet))
