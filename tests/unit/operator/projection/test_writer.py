"""Writer, accepted writes, drift check and error texts without a server (E1, E2, E5, E6)."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from tests.support.leadership import FixedLeadership

from hotpool.errors import FencedError, NotLeaderError, RejectedError, RetryableError, WriteError
from hotpool.projection.accepted_writes import AcceptedWrites, WriteStamp
from hotpool.projection.connection.async_connection import connect, describe
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.drift_check import DriftCheck
from hotpool.projection.drift_rotation import Rotation
from hotpool.projection.functions import Functions, library_source
from hotpool.projection.keys import FleetKeys
from hotpool.projection.redis_errors import (
    BaseMismatchError,
    OtherClusterError,
    RedisFullError,
    TermNotClaimedError,
    VersionConflictError,
    translate,
)
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpool.projection.connection.async_connection import Client

POOL = PoolDocument("zh-en", "u1", None, None, frozenset("a"), frozenset(), frozenset())


class FakeClient:
    """A client that replies to each command by a function, and records the commands."""

    def __init__(self, reply: Callable[[tuple[Any, ...]], Any]) -> None:
        self.reply = reply
        self.sent: list[tuple[Any, ...]] = []
        self.connection_pool = type("Pool", (), {"connection_kwargs": {"password": "s3cret"}})()

    async def execute_command(self, *words: Any) -> Any:
        """Return the reply of the function."""
        self.sent.append(words)
        return self.reply(words)

    @property
    def client(self) -> Client:
        """This object with the type of a client."""
        return cast("Client", self)


async def test_nothing_is_sent_after_leadership_has_ended() -> None:
    fake = FakeClient(lambda _: [b"3", 1])
    leadership = FixedLeadership()
    writer = RedisWriter(fake.client, leadership, namespace="speech")
    await writer.claim(3)
    sent = len(fake.sent)
    leadership.leading = False
    calls = (
        writer.claim(4),
        writer.replace_pool(POOL),
        writer.drop_pool("zh-en"),
        writer.drop_index(["a/b"]),
        writer.replace_node(NodeDocument("n", ())),
        writer.drop_node("n"),
        writer.stamp(complete=True),
    )
    for call in calls:
        with pytest.raises(NotLeaderError):
            await call
    assert len(fake.sent) == sent


async def test_nothing_is_sent_before_the_first_claim() -> None:
    fake = FakeClient(lambda _: 1)
    with pytest.raises(TermNotClaimedError):
        await RedisWriter(fake.client, FixedLeadership(), namespace="speech").stamp(complete=True)
    assert fake.sent == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ResponseError("NOTERM no leader"), TermNotClaimedError),
        (ResponseError("STALETERM 9"), FencedError),
        (ResponseError("STALETERM 7"), TermNotClaimedError),
        (ResponseError("STALEVERSION 41"), VersionConflictError),
        (ResponseError("NOSTAGE gone"), RetryableError),
        (ResponseError("MISCONF errors writing to the AOF file"), RetryableError),
        (ResponseError("ERR unknown command"), RejectedError),
        (RedisConnectionError("refused"), RetryableError),
        (RedisTimeoutError("slow"), RetryableError),
        (ReadOnlyError("replica"), RetryableError),
        (OutOfMemoryError("full"), RedisFullError),
        (ResponseError("STALETERM 9 ours"), FencedError),
        (ResponseError("STALETERM 9 another"), OtherClusterError),
        (ResponseError("OTHERCLUSTER another"), OtherClusterError),
        (ResponseError("STALEBASE 41"), BaseMismatchError),
        (MovedError("1 127.0.0.1:7000"), RetryableError),
        (OSError("no route"), RetryableError),
        (AuthenticationError("wrong"), RejectedError),
        (NoPermissionError("no fcall"), RejectedError),
    ],
)
def test_redis_errors_are_translated_to_write_errors(error: Exception, expected: type[WriteError]) -> None:
    failure = translate(error, "text", 8, "ours")
    assert type(failure) is expected
    assert str(failure) == "text"


async def test_no_error_text_contains_the_password() -> None:
    def refuse(_: object) -> None:
        raise ResponseError("unknown command `HELLO`, with args beginning with: `AUTH` `op` `s3cret`")

    writer = RedisWriter(FakeClient(refuse).client, FixedLeadership(), namespace="speech")
    with pytest.raises(RejectedError) as caught:
        await writer.claim(1)
    assert "s3cret" not in str(caught.value)
    assert "***" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url", ["redis://:s3cret#1@host", "s3cret", "http://op:s3cret@host", "redis://host/0?socket_timeout=s3cret"]
)
def test_an_invalid_url_is_rejected_without_its_text(url: str) -> None:
    with pytest.raises(ValueError, match="URL of Redis") as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_client_never_resends_and_redacts_its_password() -> None:
    client = connect("rediss://op:s3cret@example.test:6380/0")
    settings = cast("Any", client).connection_pool.connection_kwargs
    assert settings["retry"].get_retries() == 0
    assert settings["socket_timeout"] == settings["socket_connect_timeout"] == 2.0
    assert (settings["username"], settings["password"], settings["host"]) == ("op", "s3cret", "example.test")
    assert describe(ValueError("a s3cret b"), client) == "ValueError: a *** b"


async def test_a_missing_library_is_loaded_and_the_call_repeated() -> None:
    loaded = False

    def reply(words: tuple[Any, ...]) -> Any:
        nonlocal loaded
        if words[0] == "FUNCTION LOAD":
            loaded = True
        elif not loaded:
            raise ResponseError("Function not found")
        return 1

    fake = FakeClient(reply)
    assert await Functions(fake.client, may_load=True).call("stamp", ["{a:b}:meta"], [3, 1]) == 1
    assert [words[0] for words in fake.sent] == ["FCALL", "FUNCTION LOAD", "FUNCTION LOAD", "FCALL"]
    loaded = False
    with pytest.raises(ResponseError):
        await Functions(fake.client, may_load=False).read("pick", ["{a:b}:meta"])


async def test_a_call_is_not_resent_after_a_lost_connection() -> None:
    def lose(_: object) -> None:
        raise RedisConnectionError("lost")

    fake = FakeClient(lose)
    with pytest.raises(RedisConnectionError):
        await Functions(fake.client, may_load=True).call("replace", [], [])
    assert len(fake.sent) == 1


def test_writes_of_this_process_are_compared_exactly() -> None:
    writes = AcceptedWrites()
    with writes.writing("a") as version:
        writes.record_accepted("a", WriteStamp(3, version, "d1"))
    assert writes.matches("a", WriteStamp(3, version, "d1"), "d1")
    assert not writes.matches("a", WriteStamp(3, version + 1, "d1"), "d1")
    assert not writes.matches("a", WriteStamp(2, version, "d1"), "d1")
    assert not writes.matches("a", WriteStamp(3, version, "d1"), "d2")


def test_writes_of_another_leader_need_only_the_same_digest() -> None:
    assert AcceptedWrites().matches("a", WriteStamp(2, 77, "d1"), "d1")
    assert not AcceptedWrites().matches("a", WriteStamp(2, 77, "d2"), "d1")


def test_after_an_unknown_outcome_nothing_matches_and_the_next_version_is_higher() -> None:
    writes = AcceptedWrites()
    with pytest.raises(RetryableError), writes.writing("a") as lost:
        raise RetryableError("lost")
    assert not writes.matches("a", WriteStamp(3, lost, "d1"), "d1")
    writes.observe_version(40)
    with writes.writing("a") as version:
        writes.record_accepted("a", WriteStamp(3, version, "d1"))
    assert version == 41
    assert writes.matches("a", WriteStamp(3, 41, "d1"), "d1")


def test_of_two_overlapping_writes_the_later_version_wins() -> None:
    writes = AcceptedWrites()
    with writes.writing("a") as first, writes.writing("a") as second:
        writes.record_accepted("a", WriteStamp(3, second, "new"))
        writes.record_accepted("a", WriteStamp(3, first, "old"))
    assert writes.matches("a", WriteStamp(3, second, "new"), "new")


def test_names_written_during_a_drift_check_are_tracked_including_writes_begun_before() -> None:
    writes = AcceptedWrites()
    with writes.writing("before"), writes.track_names() as names:
        with writes.writing("during"):
            pass
        assert names == {"before", "during"}
    with writes.track_names() as later:
        assert later == set()
    with writes.writing("after"):
        pass
    assert later == set()


async def test_pools_created_or_deleted_during_a_drift_check_are_not_reported() -> None:
    keys, pools, nodes = FleetKeys("hotpool", "speech"), AcceptedWrites(), AcceptedWrites()

    def reply(words: tuple[Any, ...]) -> Any:
        if words[1].endswith("overview"):
            with pools.writing("new"), pools.writing("zh-en"):
                pools.record_dropped("zh-en")
            return [library_source()[1].encode(), b"3", b"1", b"3", 0]
        if words[1].endswith("part"):
            some = {keys.pools: [b"new", b"old"], keys.index: [b"g/new", b"new", b"g/old", b"old"]}
            return [b"0", some.get(words[3], [])]
        if words[1].endswith("pool_contents"):
            return [[b"", b"", b"", [], [], []]]
        return [[b"", b"", b"", b"", b"", b"", b"", 0, 0, 0, 0]]

    functions = Functions(FakeClient(reply).client, may_load=True)
    result = await DriftCheck(functions, keys, pools, nodes, Rotation()).run(3, {"zh-en": POOL}, {})
    assert result.pools == frozenset()
    assert result.stray_pools == {"old"}
    assert result.stray_index == {"g/old"}
    assert result.claimed


def test_the_look_up_imports_redis_and_nothing_of_the_operator() -> None:
    program = "import sys, hotpool.lookup; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "redis" in loaded
    assert not loaded & {"kopf", "kubernetes", "pydantic", "msgspec", "structlog", "click", "aiohttp"}


async def test_an_unreachable_cluster_is_reported_with_its_cause() -> None:
    def refuse(_: object) -> None:
        raise RedisClusterException("cannot be connected") from AuthenticationError("invalid")  # type: ignore[no-untyped-call]

    with pytest.raises(RetryableError, match="does not accept the user or the password"):
        await RedisWriter(FakeClient(refuse).client, FixedLeadership(), namespace="speech").claim(1)
