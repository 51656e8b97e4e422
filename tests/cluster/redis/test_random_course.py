"""Random courses of images, faults, damage and failovers: Redis holds the last images, and never a mix (E1, E2)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.support.lossy_redis import KEYS, NODES, Line, counted, image, stored

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


class Course(RuleBasedStateMachine):
    """Random images, faults, damage and leaders; `wanted` is the model."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = connect(f"redis://127.0.0.1:{port}/0")
        self.wanted: dict[str, PoolDocument] = {}
        self.damaged: set[str] = set()
        self.replica: dict[bytes, bytes] = {}
        self.replica_damaged: set[str] = set()
        self.term = 0
        self.line = Line(self.client, self.look)

    @initialize()
    def begin(self) -> None:
        self.ask("FLUSHALL")
        self.elect()
        for name in POOLS:
            self.fill(name, "ready")

    def teardown(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()

    async def look(self) -> None:
        """What any reader sees now is exactly what was given for the version that it states."""
        for name in POOLS:
            if name not in self.damaged:
                (_, _, digest), held = await stored(self.client, name)
                assert held is None or held.digest == digest

    @rule()
    def elect(self) -> None:
        """Another process leads from now on; it has written nothing yet."""
        self.term += 1
        self.writer = RedisWriter(cast("Client", self.line), namespace="speech", leader=lambda: True)
        self.runner.run(self.sent(self.writer.claim(self.term)))

    def ask(self, *words: str) -> Any:
        """Answer of the server to a stranger."""

        async def asked() -> Any:
            return await self.client.execute_command(*words)

        return self.runner.run(asked())

    async def sent(self, write: Any) -> None:
        with suppress(RetryableError):
            await write

    def put(self, name: str, states: dict[str, str]) -> None:
        former = self.wanted.get(name)
        made = image(name, states, former.uid if former else f"u{self.term}", former)
        assert made == image(name, states, made.uid)
        self.wanted[name] = made
        self.runner.run(self.sent(self.writer.replace_pool(made)))

    @rule(name=st.sampled_from(POOLS), states=st.dictionaries(st.sampled_from(NODES), st.sampled_from(STATES)))
    def replace(self, name: str, states: dict[str, str]) -> None:
        self.put(name, states)

    @rule(name=st.sampled_from(POOLS), state=st.sampled_from(STATES))
    def fill(self, name: str, state: str) -> None:
        self.put(name, dict.fromkeys(NODES, state))

    @rule(
        name=st.sampled_from(POOLS),
        nodes=st.lists(st.sampled_from(NODES), max_size=4),
        state=st.sampled_from([*STATES, None]),
    )
    def move(self, name: str, nodes: list[str], state: str | None) -> None:
        """Some nodes come, leave or change their state."""
        former = self.wanted.get(name)
        groups = zip(STATES, former.members, strict=True) if former else ()
        states = {node: known for known, members in groups for node in members}
        for node in nodes:
            states.pop(node, None)
            if state:
                states[node] = state
        self.put(name, states)

    @rule(name=st.sampled_from(POOLS))
    def drop(self, name: str) -> None:
        self.wanted.pop(name, None)
        self.runner.run(self.sent(self.writer.drop_pool(name)))

    @rule(kind=st.sampled_from(["lost", "never", "late"]))
    def fail_next(self, kind: str) -> None:
        self.line.fault = kind

    @rule()
    def deliver(self) -> None:
        """The look between two steps is not for us here: the order of what comes late is the network's."""
        self.runner.run(self.line.deliver())

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
        """Somebody changes a pool that is there by hand."""
        facts = KEYS.pool(name)[0]
        key = f"{facts}:{words[1]}" if words[1] else facts
        if self.ask("EXISTS", facts):
            self.damaged.add(name)
            self.ask(words[0], key, *words[2:])

    @rule()
    def replicate(self) -> None:
        """A replica has all of this."""
        self.replica = self.runner.run(self.dumped())
        self.replica_damaged = set(self.damaged)

    async def dumped(self) -> dict[bytes, bytes]:
        names = await self.client.execute_command("KEYS", "*")
        return {name: await self.client.execute_command("DUMP", name) for name in names}

    @rule()
    def fail_over(self) -> None:
        """That replica, which may have missed a lot since, is the server now."""
        self.runner.run(self.restored())
        self.damaged = set(self.replica_damaged)

    async def restored(self) -> None:
        async with self.client.pipeline(transaction=True) as asked:
            asked.flushall()
            for name, dump in self.replica.items():
                asked.restore(name, 0, dump)
            await asked.execute()

    @rule(words=st.sampled_from([("FLUSHALL",), ("FUNCTION FLUSH",), ("DEL", KEYS.meta)]))
    def lose(self, words: tuple[str, ...]) -> None:
        self.ask(*words)

    @rule()
    def round(self) -> None:
        self.runner.run(self.sent(self.heal()))

    async def heal(self) -> None:
        """What the mirror does in a round."""
        assert await self.writer.claim(self.term) == self.term
        found = await self.writer.check_drift(self.wanted, {})
        for name in found.pools:
            await self.writer.replace_pool(self.wanted[name])
        for name in found.stray_pools:
            await self.writer.drop_pool(name)
        await self.writer.drop_index(found.stray_index)
        if found.clean:
            self.damaged.clear()

    @rule()
    def quiet(self) -> None:
        """Without further faults Redis holds the last images within two rounds."""
        self.line.fault = None
        self.runner.run(self.line.deliver())
        for _ in range(3):
            self.runner.run(self.sent(self.heal()))
        for name in POOLS:
            _, held = self.runner.run(stored(self.client, name))
            assert held == self.wanted.get(name)
            assert held is None or held.members == self.wanted[name].members
        assert {name.decode() for name in self.ask("HVALS", KEYS.index)} == self.wanted.keys()

    @invariant()
    def seen(self) -> None:
        self.runner.run(self.look())


def follow(server: RedisServer, monkeypatch: pytest.MonkeyPatch, courses: int) -> None:
    """Run so many random courses of thirty steps."""
    monkeypatch.setattr(writing, "MEMBERS_PER_CALL", 12)
    server.start()
    before = counted("change")
    run_state_machine_as_test(
        cast("type[RuleBasedStateMachine]", lambda: Course(server.port)),
        settings=settings(
            max_examples=courses,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert counted("change") > before


def test_whatever_happens_redis_holds_the_last_images_and_readers_never_see_a_mix(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(server, monkeypatch, 15)
