"""The agent's credentials (requirement B9): read again when rotated, and after a 401; one session at a time."""

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

from hotpool_agent.kube import credentials
from hotpool_agent.kube.credentials import Target, TargetError
from hotpool_agent.kube.node_resources import NodeResources

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"


@pytest.fixture
def api(tls_api: FakeApi) -> FakeApi:
    return tls_api


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever happens, no key stays in the folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


class Place:
    """Where an agent finds its credential: `path` of a kubeconfig, or None in a pod. `log_in` rotates it."""

    def __init__(self, api: FakeApi, authority: Authority, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.authority = authority

    @property
    def path(self) -> Path | None:
        return self.folder / "kubeconfig.json"

    def log_in(self, who: str) -> None:
        """The credential is this one from now on."""
        raise NotImplementedError

    def _write(self, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> None:
        self.api.kubeconfig(self.folder, user, cluster or {"certificate-authority": str(self.authority.path)})


class Inline(Place):
    """A token in the kubeconfig."""

    def log_in(self, who: str) -> None:
        self._write({"token": who})


class TokenFile(Place):
    """A token file, named relative to the kubeconfig and with a newline at its end; a token beside it is older."""

    def log_in(self, who: str) -> None:
        token = self.folder / "token"
        if not token.exists():
            self._write({"tokenFile": "token", "token": "older"})
        token.write_text(f"{who}\n", encoding="utf-8")


class SameLook(TokenFile):
    """A token file that looks the same from outside: same size, same time of change."""

    def log_in(self, who: str) -> None:
        super().log_in(who)
        os.utime(self.folder / "token", (1, 1))


class Certificates(Place):
    """Certificate and key files."""

    def log_in(self, who: str) -> None:
        pair = self.authority.issue(who)
        names = ("client.crt", "client.key")
        for source, name in zip((pair.certificate, pair.key), names, strict=True):
            shutil.copy(source, self.folder / name)
        if not (self.folder / "kubeconfig.json").exists():
            self._write({"client-certificate": names[0], "client-key": names[1]})


class Embedded(Place):
    """Certificates in the kubeconfig itself."""

    def log_in(self, who: str) -> None:
        pair = self.authority.issue(who)
        user = {"client-certificate-data": _data(pair.certificate), "client-key-data": _data(pair.key)}
        self._write(user, {"certificate-authority-data": _data(self.authority.path)})


class Pod(Place):
    """A service account; kubelet replaces the token through a symbolic link to a folder."""

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
async def running(place: Place, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Running]:
    """An agent that logs in from there."""
    host, _, port = place.api.url.removeprefix("https://").partition(":")
    if place.path is None:
        monkeypatch.setattr(credentials, "SERVICE_ACCOUNT", place.folder)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        monkeypatch.delenv("KUBECONFIG", raising=False)
    async with agent_running(place.folder / "state", place.path, NMT, **settings) as it:
        yield it


@pytest.mark.parametrize("kind", [Inline, TokenFile, SameLook, Certificates, Embedded, Pod])
async def test_rotated_credentials_are_used_before_the_old_ones_are_refused(
    api: FakeApi,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[FakeApi, Authority, Path], Place],
) -> None:
    place = kind(api, authority, tmp_path)
    place.log_in("first")
    async with running(place, monkeypatch) as it:
        await api.until(lambda: api.beats and api.watches == 1)
        assert api.connected() == {"first"}
        for who in ("other", "third"):
            place.log_in(who)
            # The old session is closed, its watch ended, and the new one has a watch.
            await api.until(partial(_alone, api, who), seconds=30)
        assert all(len(names) == 1 for names in api.connections.values())
        assert it.agent.reporter.problem is None
        assert it.agent.heartbeat.problem is None
        assert it.agent.watch.problem is None
        api.allowed = {"third"}
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats)
        assert len(api.writes) == 1
        await it.shut_down()


async def test_a_401_alone_makes_the_agent_log_in_again(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "secret"
    script = (
        "import json, sys; print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential',"
        f" 'status': {{'token': open({str(source)!r}).read()}}}}))"
    )
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", script]}
    source.write_text("first", encoding="utf-8")
    place = Place(api, authority, tmp_path)
    api.kubeconfig(tmp_path, {"exec": run}, {"certificate-authority": str(authority.path)})
    # The reporter has nothing to say: the heartbeat's 401 must do.
    async with running(place, monkeypatch, request_seconds=10.0) as it:
        await api.until(lambda: api.beats and api.connected() == {"first"}, seconds=30)
        source.write_text("second", encoding="utf-8")
        api.allowed = {"second"}
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats and api.connected() == {"second"}, seconds=30)
        await eventually(lambda: it.agent.heartbeat.problem is None)
        assert len(api.writes) == 1
        await it.shut_down()


@pytest.mark.parametrize("broken", ["", "{", "clusters: []\n", "\x00"])
async def test_a_kubeconfig_that_is_half_written_leaves_the_session_as_it_is(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    place = Inline(api, authority, tmp_path)
    place.log_in("first")
    async with running(place, monkeypatch) as it:
        await api.until(lambda: api.beats)
        (tmp_path / "kubeconfig.json").write_text(broken, encoding="utf-8")
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2)
        assert api.connected() == {"first"}
        place.log_in("second")
        await api.until(lambda: api.connected() == {"second"})
        await it.shut_down()


async def test_a_certificate_without_its_key_yet_leaves_the_session_as_it_is(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Certificates(api, authority, tmp_path)
    place.log_in("first")
    async with running(place, monkeypatch) as it:
        await api.until(lambda: api.beats)
        pair: Pair = authority.issue("second")
        shutil.copy(pair.certificate, tmp_path / "client.crt")
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2)
        assert api.connected() == {"first"}
        shutil.copy(pair.key, tmp_path / "client.key")
        await api.until(lambda: api.connected() == {"second"})
        await it.shut_down()


async def test_a_report_under_way_is_not_cut_off_by_a_new_session(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Inline(api, authority, tmp_path)
    place.log_in("first")
    async with running(place, monkeypatch, request_seconds=30.0) as it:
        await api.until(lambda: api.beats)
        late = Fault(lambda request: request.path.endswith("/status"), kind="late")
        api.faults.append(late)
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: len(api.writes) == 2)
        before = claims(api)
        place.log_in("second")
        # The next request finds the rotation, and waits for the report's answer.
        other = asyncio.create_task(it.agent.resources.read_capability())
        await asyncio.sleep(0)
        late.release.set()
        assert await other
        await it.agent.reporter.flush()
        await api.until(lambda: api.connected() == {"second"})
        assert len(api.writes) == 2
        # Its answer was heard: nothing had to be read.
        assert claims(api) == before
        assert it.agent.reporter.problem is None
        await it.shut_down()


async def test_another_current_context_does_not_move_a_running_agent(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Inline(api, authority, tmp_path)
    place.log_in("first")
    async with running(place, monkeypatch) as it:
        await api.until(lambda: api.beats)
        place.log_in("second")
        path = tmp_path / "kubeconfig.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["contexts"][0]["context"]["namespace"] = "elsewhere"
        content["contexts"].append({"name": "b", "context": {"cluster": "fake", "user": "b", "namespace": "b"}})
        content["users"].append({"name": "b", "user": {"token": "wrong"}})
        path.write_text(json.dumps(content | {"current-context": "b"}), encoding="utf-8")
        await api.until(lambda: api.connected() == {"second"})
        assert it.agent.resources.namespace == "fleet"
        assert not [path for _, path in api.requests if "/namespaces/fleet/" not in path]
        await it.shut_down()


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"tokenFile": "none"}, "none"),
        ({"tokenFile": "empty"}, "is empty"),
        ({"client-certificate": "none", "client-key": "none"}, "none"),
        ({"client-certificate": "empty", "client-key": "empty"}, "no usable cluster configuration"),
    ],
)
async def test_what_is_wrong_with_a_kubeconfig_is_said_at_the_start(
    api: FakeApi, authority: Authority, tmp_path: Path, user: dict[str, str], words: str
) -> None:
    (tmp_path / "empty").write_text("", encoding="utf-8")
    path = api.kubeconfig(tmp_path, user, {"certificate-authority": str(authority.path)})
    with pytest.raises(TargetError, match=words):
        await NodeResources(Target(str(path)), "n1", 1).connect()


async def test_a_kubeconfig_without_the_contexts_user_is_said_at_the_start(tmp_path: Path, api: FakeApi) -> None:
    path = api.kubeconfig(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"users": []}), encoding="utf-8")
    with pytest.raises(TargetError, match="has no user"):
        await NodeResources(Target(str(path)), "n1", 1).connect()


async def test_passwords_of_netrc_are_left_alone(
    api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    place = Inline(api, authority, tmp_path)
    place.log_in("first")
    async with running(place, monkeypatch) as it:
        await api.until(lambda: api.beats)
        assert api.connected() == {"first"}
        await it.shut_down()


def claims(api: FakeApi) -> int:
    """How often the agent read what is stored, in order to claim or go on."""
    return sum(method == "PATCH" and path.split("?")[0].endswith("capabilities/n1") for method, path in api.requests)


def _alone(api: FakeApi, who: str) -> bool:
    return api.connected() == {who} and api.watches == 1


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
