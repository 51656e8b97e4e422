"""Random documents, faults, damage and failovers: Redis ends with the last documents, and never has a mix (E1, E2)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.support.leadership import FixedLeadership
from tests.support.lossy_redis import KEYS, NODES, LossyClient, make_document, pool_write_count, stored
from tests.support.redis_fixture_lookup import NO_DRIFT

from hotpool.errors import RetryableError
from hotpool.projection import writer as writing
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.keys import STATES
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    import pytest

    from hotpool.projection.documents import PoolDocument
    from localfleet.redis_server import RedisServer

POOLS = ("zh-en", "en-zh")


class ProjectionMachine(RuleBasedStateMachine):
    """Random documents, faults, damage and leaders. `wanted` is the model."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = connect(f"redis://127.0.0.1:{port}/0")
        self.wanted: dict[str, PoolDocument] = {}
        self.damaged: set[str] = set()
        self.replica: dict[bytes, bytes] = {}
        self.replica_damaged: set[str] = set()
        self.term = 0
        self.lossy = LossyClient(self.client, self.check_readers)

    @initialize()
    def begin(self) -> None:
        self.execute("FLUSHALL")
        self.elect()
        for name in POOLS:
            self.fill(name, "ready")

    def teardown(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()

    async def check_readers(self) -> None:
        """Check that a reader sees exactly the document of the version it reads."""
        for name in POOLS:
            if name not in self.damaged:
                (_, _, digest), held = await stored(self.client, name)
                assert held is None or held.digest == digest

    @rule()
    def elect(self) -> None:
        """Start another leader, which has written nothing yet."""
        self.term += 1
        self.writer = RedisWriter(cast("Client", self.lossy), FixedLeadership(), namespace="speech")
        self.runner.run(self.attempt(self.writer.claim(self.term)))

    def execute(self, *words: str) -> Any:
        """Return the server's reply to another client."""

        async def run_command() -> Any:
            return await self.client.execute_command(*words)

        return self.runner.run(run_command())

    async def attempt(self, write: Any) -> None:
        with suppress(RetryableError):
            await write

    def publish(self, name: str, states: dict[str, str]) -> None:
        former = self.wanted.get(name)
        document = make_document(name, states, former.uid if former else f"u{self.term}", former)
        assert document == make_document(name, states, document.uid)
        self.wanted[name] = document
        self.runner.run(self.attempt(self.writer.replace_pool(document)))

    @rule(name=st.sampled_from(POOLS), states=st.dictionaries(st.sampled_from(NODES), st.sampled_from(STATES)))
    def replace(self, name: str, states: dict[str, str]) -> None:
        self.publish(name, states)

    @rule(name=st.sampled_from(POOLS), state=st.sampled_from(STATES))
    def fill(self, name: str, state: str) -> None:
        self.publish(name, dict.fromkeys(NODES, state))

    @rule(
        name=st.sampled_from(POOLS),
        nodes=st.lists(st.sampled_from(NODES), max_size=4),
        state=st.sampled_from([*STATES, None]),
    )
    def move(self, name: str, nodes: list[str], state: str | None) -> None:
        """Add, remove or change the state of some nodes."""
        former = self.wanted.get(name)
        groups = zip(STATES, former.members, strict=True) if former else ()
        states = {node: known for known, members in groups for node in members}
        for node in nodes:
            states.pop(node, None)
            if state:
                states[node] = state
        self.publish(name, states)

    @rule(name=st.sampled_from(POOLS))
    def drop(self, name: str) -> None:
        self.wanted.pop(name, None)
        self.runner.run(self.attempt(self.writer.drop_pool(name)))

    @rule(kind=st.sampled_from(["lost", "never", "late"]))
    def fail_next(self, kind: str) -> None:
        self.lossy.fault = kind

    @rule()
    def deliver(self) -> None:
        """Execute the delayed writes without a check in between, because the network decides their order."""
        self.runner.run(self.lossy.deliver())

    @rule(
        name=st.sampled_from(POOLS),
        words=st.sampled_from(
            [
                ("ZREM", "ready", NODES[0]),
                ("ZADD", "ready", "1", "stranger"),
                ("ZADD", "draining", "1", NODES[1]),
                ("DEL", "ready"),
                ("DEL", ""),
                ("HINCRBY", "", "version", "3"),
                ("HINCRBY", "", "version", "-1"),
                ("HSET", "", "uid", "x"),
                ("HSET", "", "digest", "x"),
            ]
        ),
    )
    def damage(self, name: str, words: tuple[str, ...]) -> None:
        """Change an existing pool by hand."""
        facts = KEYS.pool(name)[0]
        key = f"{facts}:{words[1]}" if words[1] else facts
        if self.execute("EXISTS", facts):
            self.damaged.add(name)
            self.execute(words[0], key, *words[2:])

    @rule()
    def replicate(self) -> None:
        """Copy everything to a replica."""
        self.replica = self.runner.run(self.dump_all())
        self.replica_damaged = set(self.damaged)

    async def dump_all(self) -> dict[bytes, bytes]:
        names = await self.client.execute_command("KEYS", "*")
        return {name: await self.client.execute_command("DUMP", name) for name in names}

    @rule()
    def fail_over(self) -> None:
        """Promote the replica, which may have missed later writes."""
        self.runner.run(self.restore_dump())
        self.damaged = set(self.replica_damaged)

    async def restore_dump(self) -> None:
        async with self.client.pipeline(transaction=True) as pipeline:
            pipeline.flushall()
            for name, dump in self.replica.items():
                pipeline.restore(name, 0, dump)
            await pipeline.execute()

    @rule(words=st.sampled_from([("FLUSHALL",), ("FUNCTION FLUSH",), ("DEL", KEYS.meta)]))
    def lose(self, words: tuple[str, ...]) -> None:
        self.execute(*words)

    @rule()
    def round(self) -> None:
        self.runner.run(self.attempt(self.repair()))

    async def repair(self) -> None:
        """Write what differs, as the operator does."""
        assert await self.writer.claim(self.term) == self.term
        drift = await self.writer.check_drift(self.wanted, {})
        for name in drift.pools:
            await self.writer.replace_pool(self.wanted[name])
        for name in drift.stray_pools:
            await self.writer.drop_pool(name)
        await self.writer.drop_index(drift.stray_index)
        if drift == NO_DRIFT:
            self.damaged.clear()

    @rule()
    def quiet(self) -> None:
        """Check that Redis holds the last documents after three rounds without faults."""
        self.lossy.fault = None
        self.runner.run(self.lossy.deliver())
        for _ in range(3):
            self.runner.run(self.attempt(self.repair()))
        for name in POOLS:
            _, held = self.runner.run(stored(self.client, name))
            assert held == self.wanted.get(name)
            assert held is None or held.members == self.wanted[name].members
        assert {name.decode() for name in self.execute("HVALS", KEYS.index)} == self.wanted.keys()

    @invariant()
    def readers_see_no_mix(self) -> None:
        self.runner.run(self.check_readers())


def run_random_courses(server: RedisServer, monkeypatch: pytest.MonkeyPatch, courses: int) -> None:
    """Run `courses` random courses of thirty steps."""
    monkeypatch.setattr(writing, "MEMBERS_PER_CALL", 12)
    before = pool_write_count("change")
    run_state_machine_as_test(
        cast("type[RuleBasedStateMachine]", lambda: ProjectionMachine(server.port)),
        settings=settings(
            max_examples=courses,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert pool_write_count("change") > before


def test_redis_ends_with_the_last_documents_and_readers_never_see_a_mix(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_random_courses(server, monkeypatch, 15)
