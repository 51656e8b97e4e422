"""The agent's credentials (requirement B9): reloaded after a rotation and after a 401, with one session at a time."""

import asyncio
import base64
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.agent_run import Running, agent_running, eventually
from tests.support.certificates import Authority, Pair
from tests.support.fake_api import FakeApi, Fault

from hotpool.common import kubeconfig
from hotpool.common.kubeconfig import Target, TargetError
from hotpool_agent.kube.http_client import KubeHttpClient

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"


@pytest.fixture
def api(tls_api: FakeApi) -> FakeApi:
    return tls_api


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that no key stays in the folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


class CredentialSource:
    """Source of a credential: `path` of a kubeconfig, or None in a pod. `log_in` rotates it."""

    def __init__(self, api: FakeApi, authority: Authority, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.authority = authority

    @property
    def path(self) -> Path | None:
        return self.folder / "kubeconfig.json"

    def log_in(self, who: str) -> None:
        """Replace the credential by that of a user."""
        raise NotImplementedError

    def _write(self, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> None:
        self.api.kubeconfig(self.folder, user, cluster or {"certificate-authority": str(self.authority.path)})


class Inline(CredentialSource):
    """A token in the kubeconfig."""

    def log_in(self, who: str) -> None:
        self._write({"token": who})


class TokenFile(CredentialSource):
    """A token file, with a path relative to the kubeconfig and a newline at its end. The kubeconfig has an old one."""

    def log_in(self, who: str) -> None:
        token = self.folder / "token"
        if not token.exists():
            self._write({"tokenFile": "token", "token": "older"})
        token.write_text(f"{who}\n", encoding="utf-8")


class SameStat(TokenFile):
    """A token file whose size and time of change stay the same."""

    def log_in(self, who: str) -> None:
        super().log_in(who)
        os.utime(self.folder / "token", (1, 1))


class Certificates(CredentialSource):
    """Certificate and key files."""

    def log_in(self, who: str) -> None:
        pair = self.authority.issue(who)
        names = ("client.crt", "client.key")
        for source, name in zip((pair.certificate, pair.key), names, strict=True):
            shutil.copy(source, self.folder / name)
        if not (self.folder / "kubeconfig.json").exists():
            self._write({"client-certificate": names[0], "client-key": names[1]})


class Embedded(CredentialSource):
    """Certificates embedded in the kubeconfig."""

    def log_in(self, who: str) -> None:
        pair = self.authority.issue(who)
        user = {"client-certificate-data": _data(pair.certificate), "client-key-data": _data(pair.key)}
        self._write(user, {"certificate-authority-data": _data(self.authority.path)})


class Pod(CredentialSource):
    """A service account token, which the kubelet replaces through a symbolic link to a folder."""

    path = None

    def log_in(self, who: str) -> None:
        fresh = self.folder / f"..{who}"
        fresh.mkdir()
        (fresh / "token").write_text(who, encoding="utf-8")
        shutil.copy(self.authority.path, fresh / "ca.crt")
        (fresh / "namespace").write_text("fleet", encoding="utf-8")
        link = self.folder / "..next"
        link.symlink_to(fresh.name)
        link.replace(self.folder / "..data")
        for name in ("token", "ca.crt", "namespace"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")


@asynccontextmanager
async def running(source: CredentialSource, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Running]:
    """Run an agent with the credential."""
    host, _, port = source.api.url.removeprefix("https://").partition(":")
    if source.path is None:
        monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", source.folder)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("HOME", str(source.folder))
    async with agent_running(source.folder / "state", source.path, NMT, **settings) as it:
        yield it


@pytest.mark.parametrize("kind", [Inline, TokenFile, SameStat, Certificates, Embedded, Pod])
async def test_rotated_credentials_are_used_before_the_old_ones_are_refused(
    api: FakeApi,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[FakeApi, Authority, Path], CredentialSource],
) -> None:
    source = kind(api, authority, tmp_path)
    source.log_in("first")
    async with running(source, monkeypatch) as it:
        await api.until(lambda: api.beats and api.watches == 1)
        assert api.connected() == {"first"}
        for who in ("other", "third"):
            source.log_in(who)
            # The old session and its watch are closed, and the new one has a watch.
            await api.until(partial(_only_session, api, who), seconds=30)
        assert all(len(names) == 1 for names in api.connections.values())
        assert it.agent.reporter.problem is None
        assert it.agent.heartbeat.problem is None
        assert it.agent.watch.problem is None
        api.allowed = {"third"}
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats)
        assert len(api.writes) == 1
        await it.shut_down()


async def test_a_401_only_session_makes_the_agent_reload_its_credential(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    script = (
        "import json, sys; print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential',"
        f" 'status': {{'token': open({str(secret)!r}).read()}}}}))"
    )
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", script]}
    secret.write_text("first", encoding="utf-8")
    source = CredentialSource(api, authority, tmp_path)
    api.kubeconfig(tmp_path, {"exec": run}, {"certificate-authority": str(authority.path)})
    # There is nothing to report, so only the heartbeat gets a 401.
    async with running(source, monkeypatch, request_seconds=10.0) as it:
        await api.until(lambda: api.beats and api.connected() == {"first"}, seconds=30)
        secret.write_text("second", encoding="utf-8")
        api.allowed = {"second"}
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats and api.connected() == {"second"}, seconds=30)
        await eventually(lambda: it.agent.heartbeat.problem is None)
        assert len(api.writes) == 1
        await it.shut_down()


@pytest.mark.parametrize("broken", ["", "{", "clusters: []\n", "\x00"])
async def test_an_incomplete_kubeconfig_does_not_replace_the_session(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    source = Inline(api, authority, tmp_path)
    source.log_in("first")
    async with running(source, monkeypatch) as it:
        await api.until(lambda: api.beats)
        (tmp_path / "kubeconfig.json").write_text(broken, encoding="utf-8")
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2)
        assert api.connected() == {"first"}
        source.log_in("second")
        await api.until(lambda: api.connected() == {"second"})
        await it.shut_down()


async def test_a_certificate_before_its_key_does_not_replace_the_session(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Certificates(api, authority, tmp_path)
    source.log_in("first")
    async with running(source, monkeypatch) as it:
        await api.until(lambda: api.beats)
        pair: Pair = authority.issue("second")
        shutil.copy(pair.certificate, tmp_path / "client.crt")
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2)
        assert api.connected() == {"first"}
        shutil.copy(pair.key, tmp_path / "client.key")
        await api.until(lambda: api.connected() == {"second"})
        await it.shut_down()


async def test_a_report_in_flight_is_not_ended_by_a_new_session(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Inline(api, authority, tmp_path)
    source.log_in("first")
    async with running(source, monkeypatch, request_seconds=30.0) as it:
        await api.until(lambda: api.beats)
        late = Fault(lambda request: request.path.endswith("/status"), kind="late")
        api.faults.append(late)
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: len(api.writes) == 2)
        before = claims(api)
        source.log_in("second")
        # The next request detects the rotation, and waits for the response to the report.
        other = asyncio.create_task(it.agent.resources.read_capability())
        await asyncio.sleep(0)
        late.release.set()
        assert await other
        await it.agent.reporter.flush()
        await api.until(lambda: api.connected() == {"second"})
        sequences = [write.report["sequence"] for write in api.writes]
        assert len(sequences) == len(set(sequences))
        # The response to the report was received, so nothing had to be read.
        assert claims(api) == before
        assert it.agent.reporter.problem is None
        await it.shut_down()


async def test_another_current_context_does_not_move_a_running_agent(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Inline(api, authority, tmp_path)
    source.log_in("first")
    async with running(source, monkeypatch) as it:
        await api.until(lambda: api.beats)
        source.log_in("second")
        path = tmp_path / "kubeconfig.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["contexts"][0]["context"]["namespace"] = "elsewhere"
        content["contexts"].append({"name": "b", "context": {"cluster": "fake", "user": "b", "namespace": "b"}})
        content["users"].append({"name": "b", "user": {"token": "wrong"}})
        path.write_text(json.dumps(content | {"current-context": "b"}), encoding="utf-8")
        await api.until(lambda: api.connected() == {"second"})
        assert it.agent.resources.client.namespace == "fleet"
        assert not [path for _, path in api.requests if "/namespaces/fleet/" not in path]
        await it.shut_down()


@pytest.mark.parametrize(
    ("user", "hint"),
    [
        ({"tokenFile": "none"}, "none"),
        ({"tokenFile": "empty"}, "is empty"),
        ({"client-certificate": "none", "client-key": "none"}, "none"),
        ({"client-certificate": "empty", "client-key": "empty"}, "is empty"),
    ],
)
async def test_errors_in_a_kubeconfig_are_reported_at_the_start(
    api: FakeApi, authority: Authority, tmp_path: Path, user: dict[str, str], hint: str
) -> None:
    (tmp_path / "empty").write_text("", encoding="utf-8")
    path = api.kubeconfig(tmp_path, user, {"certificate-authority": str(authority.path)})
    with pytest.raises(TargetError, match=hint):
        await KubeHttpClient(Target(str(path)), 1).open()


async def test_a_kubeconfig_without_the_contexts_user_is_reported_at_the_start(tmp_path: Path, api: FakeApi) -> None:
    path = api.kubeconfig(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"users": []}), encoding="utf-8")
    with pytest.raises(TargetError, match="has no user"):
        await KubeHttpClient(Target(str(path)), 1).open()


async def test_passwords_in_netrc_are_not_used(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    source = Inline(api, authority, tmp_path)
    source.log_in("first")
    async with running(source, monkeypatch) as it:
        await api.until(lambda: api.beats)
        assert api.connected() == {"first"}
        await it.shut_down()


def claims(api: FakeApi) -> int:
    """Return how often the agent read the stored report in order to claim or continue an epoch."""
    return sum(method == "PATCH" and path.split("?")[0].endswith("capabilities/n1") for method, path in api.requests)


def _only_session(api: FakeApi, who: str) -> bool:
    return api.connected() == {who} and api.watches == 1


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
