"""Random writes and picks: a returned endpoint is always one that the last accepted writes hold (E3, E7)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.redis_fixture_lookup import NO_DRIFT, claimed_writer

from hotpool.core.model import Endpoint as Allowed
from hotpool.lookup import Endpoint, Lookup, Picked, Reason
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints, encode_services

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client

NODES = [f"edge-{number}" for number in range(6)]
POOLS = ["gold", "silver", "any"]
TYPES = ["asr", "nmt"]
SERVICES = {"a": "asr", "b": "asr", "m": "nmt"}
ADDRESSES = ["10.0.3.7", "fd00::7"]
SEED = 20261130


@dataclass
class Model:
    """State of Redis after the accepted writes."""

    endpoints: dict[str, list[Allowed]] = field(default_factory=dict)
    nodes: dict[str, NodeDocument] = field(default_factory=dict)
    pools: dict[str, PoolDocument] = field(default_factory=dict)
    exceptions: dict[str, dict[str, str]] = field(default_factory=dict)
    """Pool → node → services that meet it; written with either."""

    def answers(self, pool: str, node: str, types: list[str], family: int | None) -> dict[str, set[Endpoint]]:
        """Return type → endpoints that a pick of this node may return."""
        document = self.pools[pool]
        found: dict[str, set[Endpoint]] = {}
        for item in self.endpoints.get(node, []):
            allowed = self.exceptions[pool].get(node) if document.services.filtered else None
            if item.type in types and (allowed is None or item.service in allowed.split(",")):
                addresses = [a for a in item.addresses if family is None or (":" in a) == (family == 6)]
                for address in addresses[:1]:
                    found.setdefault(item.type, set()).add(
                        Endpoint(address, item.port, item.app_protocol, item.service)
                    )
        return found


class Course:
    """One random course. The same seed gives the same course."""

    def __init__(self, client: Client, seed: int) -> None:
        self.client, self.draw, self.model, self.term, self.picked = client, random.Random(seed), Model(), 0, 0  # noqa: S311
        self.lookup = Lookup(client, namespace="speech", chance=self.draw.random)

    def some(self, items: list[str]) -> list[str]:
        return [item for item in items if self.draw.random() < 0.5]

    async def elect(self) -> None:
        """Let another leader claim: Redis keeps everything."""
        self.term += 1
        self.writer = await claimed_writer(self.client, self.term)
        await self.writer.stamp(complete=True)

    async def write_node(self) -> None:
        name, draw = self.draw.choice(NODES), self.draw
        found = [
            Allowed(id_, SERVICES[id_], draw.randrange(1, 9), tuple(addresses), (), draw.choice([None, "http"]))
            for id_ in self.some(list(SERVICES))
            if (addresses := self.some(ADDRESSES))
        ]
        exceptions = {pool: encode_services(self.some(list(SERVICES))) for pool in self.some(POOLS)}
        document = NodeDocument(name, (), encode_endpoints(found))
        await self.writer.replace_node(document, exceptions)
        self.model.endpoints[name], self.model.nodes[name] = found, document
        for pool, services in exceptions.items():
            if pool in self.model.pools:
                self.model.exceptions[pool][name] = services

    async def drop_node(self) -> None:
        name = self.draw.choice(NODES)
        await self.writer.drop_node(name)
        self.model.endpoints.pop(name, None)
        self.model.nodes.pop(name, None)

    async def write_pool(self) -> None:
        name = self.draw.choice(POOLS)
        groups: dict[str, set[str]] = {"ready": set(), "suspect": set(), "draining": set(), "": set()}
        for node in NODES:
            groups[self.draw.choice(["ready", "ready", "suspect", "draining", ""])].add(node)
        filtered = name != "any"
        exceptions = {n: encode_services(self.some(list(SERVICES))) for n in self.some(NODES)} if filtered else {}
        services = PoolServices(tuple(TYPES), filtered=filtered, exceptions=exceptions)
        ready, suspect, draining = (frozenset(groups[state]) for state in ("ready", "suspect", "draining"))
        document = PoolDocument(name, "u", None, None, ready, suspect, draining, services=services)
        former = self.model.pools.get(name)
        await self.writer.replace_pool(document)
        if former and self.model.exceptions[name] != former.services.exceptions:
            await self.repair(name, document)
        self.model.pools[name], self.model.exceptions[name] = document, dict(exceptions)

    async def repair(self, name: str, document: PoolDocument) -> None:
        """Rewrite what a change did not: exceptions that node writes set and the pool's documents never had."""
        pools = {**self.model.pools, name: document}
        for stale in (await self.writer.check_drift(pools, self.model.nodes)).pools:
            await self.writer.replace_pool(pools[stale])
            self.model.exceptions[stale] = dict(pools[stale].services.exceptions)

    async def drop_pool(self) -> None:
        name = self.draw.choice(POOLS)
        await self.writer.drop_pool(name)
        self.model.pools.pop(name, None)
        self.model.exceptions.pop(name, None)

    async def flush(self) -> None:
        """Lose everything, then write all documents again."""
        await self.client.execute_command("FLUSHALL")
        await self.elect()
        for pool in self.model.pools.values():
            await self.writer.replace_pool(pool)
            self.model.exceptions[pool.name] = dict(pool.services.exceptions)
        for node in self.model.nodes.values():
            await self.writer.replace_node(node)
        await self.writer.stamp(complete=True)
        assert await self.writer.check_drift(self.model.pools, self.model.nodes) == NO_DRIFT

    async def pick(self) -> None:
        pool, types, family = self.draw.choice(POOLS), self.some(TYPES) or TYPES, self.draw.choice([None, 4, 6])
        exclude = [n for n in NODES if self.draw.random() < 0.2]
        options: dict[str, Any] = self.draw.choice([{}, {"key": "k"}, {"strategy": "least-loaded"}])
        options = {"exclude": exclude, "types": types} | options | ({"family": family} if family else {})
        answer = await self.lookup.pick(pool, **options)
        document = self.model.pools.get(pool)
        if document is None:
            assert not isinstance(answer, Picked)
            assert answer.reason is Reason.POOL_UNKNOWN
            return
        usable = {
            state: {
                node: found
                for node in members.difference(exclude)
                if (found := self.model.answers(pool, node, types, family)).keys() == set(types)
            }
            for state, members in (("Ready", document.ready), ("Suspect", document.suspect))
        }
        if not isinstance(answer, Picked):
            assert usable == {"Ready": {}, "Suspect": {}}, answer
            looked_at = (document.ready | document.suspect).difference(exclude)
            assert answer.counts.no_endpoint == len(looked_at)
            assert (answer.reason is Reason.NO_ENDPOINT) == bool(looked_at)
            return
        self.picked += 1
        assert answer.state == ("Ready" if usable["Ready"] else "Suspect")
        expected = usable[answer.state][answer.node]
        assert {type_: set(found) for type_, found in answer.endpoints.items()} == expected


async def test_a_returned_endpoint_is_always_one_that_the_last_accepted_writes_hold(client: Client) -> None:
    course = Course(client, SEED)
    await course.elect()
    actions = [course.write_node] * 4 + [course.write_pool] * 3 + [course.drop_node, course.drop_pool, course.elect]
    for number in range(200):
        await course.draw.choice(actions)()
        for _ in range(3):
            await course.pick()
        if number % 50 == 49:
            await course.flush()
    assert course.picked > 100
