"""The operator's credentials: read again when their files change, when they expire, and after a 401 (B9, F5)."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.support.certificates import Authority
from tests.support.fake_api import FakeApi

from hotpool.common.kubeconfig import Target
from hotpool.core.model import Kind
from hotpool.kube import live_login
from hotpool.kube.client import ApiUnavailable, Connection, connected
from hotpool.kube.election_lease import ElectionLease
from hotpool.kube.reader import Reader

COUNTING = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
with (folder / "runs").open("a") as runs:
    runs.write("1")
status = json.loads((folder / "status").read_text())
print(json.dumps({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status}))
"""


@pytest.fixture
def api(tls_api: FakeApi) -> FakeApi:
    return tls_api


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_login, "CHECK_SECONDS", 0.0)


@asynccontextmanager
async def reading(api: FakeApi, authority: Authority, folder: Path, user: dict[str, Any]) -> AsyncIterator[Connection]:
    """Connect as this user."""
    path = api.kubeconfig(folder, user, {"certificate-authority": str(authority.path)})
    async with connected(Target(str(path))) as connection:
        yield connection


async def read(connection: Connection) -> None:
    await Reader(connection.api, "fleet").get(Kind.NODE, "n1")


async def until(connection: Connection, condition: Callable[[], bool]) -> None:
    """Read until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await read(connection)


def plugin(folder: Path, status: dict[str, Any]) -> dict[str, Any]:
    """Return a user with an exec plugin that counts its runs and returns this status."""
    (folder / "status").write_text(json.dumps(status), encoding="utf-8")
    (folder / "plugin.py").write_text(COUNTING, encoding="utf-8")
    arguments = ["-S", str(folder / "plugin.py"), str(folder)]
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": sys.executable, "args": arguments, "interactiveMode": "Never"}}


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text(encoding="utf-8"))


async def test_a_rotated_token_file_is_used_by_requests_and_by_the_thread_of_the_election(
    api: FakeApi, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("first\n", encoding="utf-8")
    async with reading(api, authority, tmp_path, {"tokenFile": "token"}) as connection:
        await read(connection)
        assert api.connected() == {"first"}
        (tmp_path / "token").write_text("second\n", encoding="utf-8")
        await until(connection, lambda: "second" in api.connected())
        api.connections.clear()
        lease = ElectionLease(connection.login, "absent")
        assert await asyncio.to_thread(lease.read) is None
        assert api.connected() == {"second"}
        await asyncio.to_thread(lease.close)


async def test_a_refused_credential_is_read_again_and_the_request_repeated_once(
    api: FakeApi, authority: Authority, tmp_path: Path
) -> None:
    async with reading(api, authority, tmp_path, plugin(tmp_path, {"token": "first"})) as connection:
        await read(connection)
        (tmp_path / "status").write_text(json.dumps({"token": "second"}), encoding="utf-8")
        api.allowed = {"second"}
        await read(connection)
        assert (runs(tmp_path), api.connected()) == (2, {"first", "second"})


async def test_a_credential_that_stays_refused_is_not_read_for_every_request(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_login, "CHECK_SECONDS", 60.0)
    api.allowed = set()
    async with reading(api, authority, tmp_path, plugin(tmp_path, {"token": "t"})) as connection:
        for _ in range(3):
            with pytest.raises(ApiUnavailable, match="401"):
                await read(connection)
    assert runs(tmp_path) == 2


async def test_a_credential_is_replaced_when_it_expires(api: FakeApi, authority: Authority, tmp_path: Path) -> None:
    status = {"token": "t", "expirationTimestamp": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()}
    async with reading(api, authority, tmp_path, plugin(tmp_path, status)) as connection:
        await until(connection, lambda: runs(tmp_path) > 1)


async def test_the_credential_of_another_server_is_not_sent_to_the_present_one(
    api: FakeApi, authority: Authority, tmp_path: Path
) -> None:
    async with reading(api, authority, tmp_path, {"token": "first"}) as connection:
        await read(connection)
        path = tmp_path / "kubeconfig.json"
        content = path.read_text(encoding="utf-8").replace("first", "second")
        path.write_text(content.replace(api.url, "https://other.test"), encoding="utf-8")
        with structlog.testing.capture_logs() as logs:
            await until(connection, lambda: bool(logs))
        assert "names another server, https://other.test" in logs[0]["error"]
        assert api.connected() == {"first"}


async def test_a_refused_client_certificate_is_replaced_in_new_connections(
    api: FakeApi, authority: Authority, tmp_path: Path
) -> None:
    def status(name: str) -> dict[str, str]:
        pair = authority.issue(name)
        return {
            "clientCertificateData": pair.certificate.read_text(encoding="utf-8"),
            "clientKeyData": pair.key.read_text(encoding="utf-8"),
        }

    async with reading(api, authority, tmp_path, plugin(tmp_path, status("first"))) as connection:
        await read(connection)
        (tmp_path / "status").write_text(json.dumps(status("second")), encoding="utf-8")
        api.allowed = {"second"}
        for _ in range(2):
            await read(connection)
        assert api.connected() == {"second"}


async def test_the_session_of_kopf_sends_a_new_credential_after_a_refusal(
    api: FakeApi, authority: Authority, tmp_path: Path
) -> None:
    url = f"{api.url}/apis/hotpool.dev/v1alpha1/namespaces/fleet/nodepools/x"
    async with (
        reading(api, authority, tmp_path, plugin(tmp_path, {"token": "first"})) as connection,
        connection.new_session() as session,
    ):
        async with session.get(url) as response:
            assert response.status == 404
        (tmp_path / "status").write_text(json.dumps({"token": "second"}), encoding="utf-8")
        api.allowed = {"second"}
        async with session.get(url) as response:
            assert response.status == 404
    assert runs(tmp_path) == 2
