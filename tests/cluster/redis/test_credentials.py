"""User, password and certificates from files, rotated under a running operator (requirement E4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.certificates import Authority
from tests.support.redis_fixture_publisher import Ours, pool, running, until
from tests.support.tls import terminator

from hotpool.errors import RejectedError, RetryableError
from hotpool.lookup import Lookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.connection.credentials import Credentials
from hotpool.projection.writer import RedisWriter
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[False, True], ids=["standalone", "cluster"])
def guarded(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with one user, `op`, whose password is `first`; nobody else may do anything."""
    with RedisServer(cluster=request.param) as server:
        server.ask("ACL", "SETUSER", "op", "reset", "on", ">first", "~*", "+@all")
        yield server


def words(server: RedisServer, *said: str) -> None:
    assert not server.ask(*said).startswith(b"-")


async def test_a_rotated_password_file_is_read_at_the_next_connection(guarded: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    credentials = Credentials(user="op", password=str(file))
    clustered = b"cluster_enabled:1" in guarded.ask("INFO", "cluster")
    client = connect(guarded.url, cluster=clustered, credentials=credentials, timeout=1)
    async with running(Ours(client)) as ours:
        words(guarded, "ACL", "SETUSER", "op", "resetpass", ">second")
        assert await ours.mirror.publish_pool(pool("edge-3"))  # what is connected stays
        words(guarded, "CLIENT", "KILL", "USER", "op")
        await until(lambda: "does not accept the user or the password" in ours.mirror.last_error)
        assert "first" not in ours.mirror.last_error
        file.write_text("second\n")
        await until(lambda: ours.mirror.healthy)
        file.unlink()
        words(guarded, "CLIENT", "KILL", "USER", "op")
        await until(lambda: "cannot read the password file" in ours.mirror.last_error)
        file.write_text("second")
        await until(lambda: ours.mirror.healthy)


async def test_the_file_comes_before_the_url_and_its_password_is_in_no_text(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wr0ng\n")
    with RedisServer() as server:
        words(server, "ACL", "SETUSER", "op", "reset", "on", ">first", "~*", "+@all")
        client = connect(server.url.replace("//", "//op:first@"), credentials=Credentials(password=str(file)))
        with pytest.raises(RejectedError) as caught:
            await RedisWriter(client, namespace="speech", leader=lambda: True).claim(1)
        assert "wr0ng" not in str(caught.value)
        file.write_text("first\n")
        assert await RedisWriter(client, namespace="speech", leader=lambda: True).claim(1) == 1
        await client.aclose()


async def test_tls_with_an_authority_of_ones_own_that_is_rotated(tmp_path: Path) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    file = tmp_path / "ca.crt"
    file.write_bytes(first.path.read_bytes())
    with RedisServer() as server:
        async with terminator(server.port, first.context(first.issue("redis"))) as front:
            url = f"rediss://127.0.0.1:{front.port}/0"
            client = connect(url, credentials=Credentials(ca=str(file)), timeout=1)
            async with running(Ours(client)) as ours:
                await front.rotate(second.context(second.issue("redis")))
                await until(lambda: "CERTIFICATE_VERIFY_FAILED" in ours.mirror.last_error)
                assert not await ours.mirror.publish_pool(pool("edge-3"))
                file.write_bytes(second.path.read_bytes())
                await until(lambda: ours.mirror.healthy)
                await front.rotate(second.context(second.issue("redis-2")))
                await until(lambda: ours.mirror.healthy)
                await ours.mirror.publish_pool(pool("edge-4"))
                await until(lambda: ours.mirror.healthy)
        async with Lookup.from_url(server.url, namespace="speech") as lookup:
            assert (await lookup.members("zh-en")).ready == ("edge-4",)


@pytest.mark.parametrize(
    ("address", "days", "signer"), [("127.0.0.2", 1, "ours"), ("127.0.0.1", -1, "ours"), ("127.0.0.1", 1, "strangers")]
)
async def test_a_server_of_another_name_an_expired_one_and_a_strangers_are_refused(
    tmp_path: Path, address: str, days: int, signer: str
) -> None:
    ours = Authority(tmp_path / "ours")
    theirs = ours if signer == "ours" else Authority(tmp_path / signer)
    with RedisServer() as server:
        async with terminator(server.port, theirs.context(theirs.issue("redis", address, days))) as front:
            url = f"rediss://127.0.0.1:{front.port}/0"
            client = connect(url, credentials=Credentials(ca=str(ours.path)), timeout=1)
            with pytest.raises(RetryableError, match="CERTIFICATE_VERIFY_FAILED"):
                await RedisWriter(client, namespace="speech", leader=lambda: True).claim(1)
            await client.aclose()


async def test_a_cluster_over_tls(tmp_path: Path) -> None:
    """The server announces the terminator's port as its own."""
    authority = Authority(tmp_path / "authority")
    with RedisServer(cluster=True) as server:
        async with terminator(server.port, authority.context(authority.issue("redis"))) as front:
            await asyncio.to_thread(words, server, "CONFIG", "SET", "cluster-announce-port", str(front.port))
            url = f"rediss://127.0.0.1:{front.port}/0"
            client = connect(url, cluster=True, credentials=Credentials(ca=str(authority.path)), timeout=1)
            async with running(Ours(client)) as ours:
                assert await ours.mirror.publish_pool(pool("edge-3"))


def test_a_file_of_certificates_without_tls_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="rediss://"):
        connect("redis://127.0.0.1:1/0", credentials=Credentials(ca="ca.crt"))
