"""User, password and certificates from files, rotated while the operator runs (E4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.certificates import Authority
from tests.support.leadership import FixedLeadership
from tests.support.redis_fleet import holds, pool_of, running, until
from tests.support.tls import terminator

from hotpool.errors import RejectedError, RetryableError
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.connection.credentials import Credentials
from hotpool.projection.writer import RedisWriter
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[False, True], ids=["standalone", "cluster"])
def protected(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with a user `op`, whose password is `first`."""
    with RedisServer(cluster=request.param) as server:
        server.ask("ACL", "SETUSER", "op", "reset", "on", ">first", "~*", "+@all")
        yield server


def execute(server: RedisServer, *command: str) -> None:
    assert not server.ask(*command).startswith(b"-")


async def test_a_rotated_password_file_is_read_at_the_next_connection(protected: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    credentials = Credentials(user="op", password=str(file))
    clustered = b"cluster_enabled:1" in protected.ask("INFO", "cluster")
    client = connect(protected.url, cluster=clustered, credentials=credentials, timeout=1)
    async with running(client) as fleet:
        execute(protected, "ACL", "SETUSER", "op", "resetpass", ">second")
        fleet.set_pool(pool_of("edge-3"))
        await until(lambda: holds(protected, "edge-3"))  # an open connection stays
        execute(protected, "CLIENT", "KILL", "USER", "op")
        await until(lambda: "does not accept the user or the password" in fleet.error)
        assert "first" not in fleet.error
        file.write_text("second\n")
        await until(lambda: fleet.healthy)
        file.unlink()
        execute(protected, "CLIENT", "KILL", "USER", "op")
        await until(lambda: "cannot read the password file" in fleet.error)
        file.write_text("second")
        await until(lambda: fleet.healthy)


async def test_the_password_file_overrides_the_url_and_no_error_contains_the_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wr0ng\n")
    with RedisServer() as server:
        execute(server, "ACL", "SETUSER", "op", "reset", "on", ">first", "~*", "+@all")
        client = connect(server.url.replace("//", "//op:first@"), credentials=Credentials(password=str(file)))
        with pytest.raises(RejectedError) as caught:
            await RedisWriter(client, FixedLeadership(), namespace="speech").claim(1)
        assert "wr0ng" not in str(caught.value)
        file.write_text("first\n")
        assert await RedisWriter(client, FixedLeadership(), namespace="speech").claim(1) == 1
        await client.aclose()


async def test_a_rotated_ca_file_is_used_at_the_next_connection(tmp_path: Path) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    file = tmp_path / "ca.crt"
    file.write_bytes(first.path.read_bytes())
    with RedisServer() as server:
        async with terminator(server.port, first.context(first.issue("redis"))) as front:
            url = f"rediss://127.0.0.1:{front.port}/0"
            client = connect(url, credentials=Credentials(ca=str(file)), timeout=1)
            async with running(client) as fleet:
                await front.rotate(second.context(second.issue("redis")))
                await until(lambda: "CERTIFICATE_VERIFY_FAILED" in fleet.error)
                fleet.set_pool(pool_of("edge-3"))
                file.write_bytes(second.path.read_bytes())
                await until(lambda: fleet.healthy)
                await front.rotate(second.context(second.issue("redis-2")))
                await until(lambda: fleet.healthy)
                fleet.set_pool(pool_of("edge-4"))
                await until(lambda: holds(server, "edge-4"))


@pytest.mark.parametrize(
    ("address", "days", "signer"),
    [("127.0.0.2", 1, "trusted"), ("127.0.0.1", -1, "trusted"), ("127.0.0.1", 1, "other")],
)
async def test_certificates_with_a_wrong_name_expired_or_of_another_authority_are_refused(
    tmp_path: Path, address: str, days: int, signer: str
) -> None:
    trusted = Authority(tmp_path / "trusted")
    authority = trusted if signer == "trusted" else Authority(tmp_path / signer)
    with RedisServer() as server:
        async with terminator(server.port, authority.context(authority.issue("redis", address, days))) as front:
            url = f"rediss://127.0.0.1:{front.port}/0"
            client = connect(url, credentials=Credentials(ca=str(trusted.path)), timeout=1)
            with pytest.raises(RetryableError, match="CERTIFICATE_VERIFY_FAILED"):
                await RedisWriter(client, FixedLeadership(), namespace="speech").claim(1)
            await client.aclose()


async def test_the_operator_connects_to_a_cluster_over_tls(tmp_path: Path) -> None:
    """The server announces the terminator's port as its own."""
    authority = Authority(tmp_path / "authority")
    with RedisServer(cluster=True) as server:
        async with terminator(server.port, authority.context(authority.issue("redis"))) as front:
            await asyncio.to_thread(execute, server, "CONFIG", "SET", "cluster-announce-port", str(front.port))
            url = f"rediss://127.0.0.1:{front.port}/0"
            client = connect(url, cluster=True, credentials=Credentials(ca=str(authority.path)), timeout=1)
            async with running(client) as fleet:
                fleet.set_pool(pool_of("edge-3"))
                await until(lambda: holds(server, "edge-3"))


def test_a_ca_file_without_tls_is_rejected() -> None:
    with pytest.raises(ValueError, match="rediss://"):
        connect("redis://127.0.0.1:1/0", credentials=Credentials(ca="ca.crt"))
