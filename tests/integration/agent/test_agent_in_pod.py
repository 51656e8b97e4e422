"""The agent as a pod (requirements A11, B9, B12): its own token names its node, and it needs no stored state.

Requirement F5.
"""

import asyncio
import base64
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.agent_process import Command, finish, spawn
from tests.support.agent_run import agent_running, eventually
from tests.support.certificates import Authority
from tests.support.fake_api import FakeApi, fake_api
from tests.support.fake_pods import pod

from hotpool.common import kubeconfig


def token(uid: str, number: int = 0) -> str:
    """Return a node-bound token, another one for each `number`."""
    claims = {"jti": str(number), "kubernetes.io": {"node": {"name": "n1", "uid": uid}}}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@pytest.fixture
def api(tls_api: FakeApi) -> FakeApi:
    return tls_api


PutToken = Callable[[str], None]


@pytest.fixture
def put_token(api: FakeApi, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PutToken:
    """Return a function that replaces the token where kubelet puts it, which makes this process a pod."""
    folder = tmp_path / "account"
    host, _, port = api.url.removeprefix("https://").partition(":")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", folder)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def put(text: str) -> None:
        fresh = folder / f"..{len(list(folder.iterdir())) if folder.exists() else 0}"
        fresh.mkdir(parents=True)
        (fresh / "token").write_text(text, encoding="utf-8")
        (fresh / "ca.crt").write_bytes(authority.path.read_bytes())
        (fresh / "namespace").write_text("fleet", encoding="utf-8")
        (folder / "..next").symlink_to(fresh.name)
        (folder / "..next").replace(folder / "..data")
        for name in ("token", "ca.crt", "namespace"):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")

    return put


async def test_a_new_pod_of_the_same_node_has_the_same_instance_without_stored_state(
    api: FakeApi, tmp_path: Path, put_token: PutToken
) -> None:
    api.pods.put(pod("whisper"))
    for number in (1, 2, 3):
        put_token(token("uid-of-the-node", number))
        async with agent_running(tmp_path / str(number), None, None, pod_namespaces="speech") as it:
            await api.until(lambda number=number: (api.report("n1") or {}).get("epoch") == number)  # type: ignore[misc]
            await eventually(lambda: it.agent.reporter.problem is None)
    reports = [write.report for write in api.writes]
    assert {report["instance"] for report in reports} == {"uid-of-the-node"}
    # The host name of each pod differs, and would change the report.
    assert {report["platform"]["hostname"] for report in reports} == {"n1"}
    assert all(report["capabilities"][0]["ready"] and not report["leaving"] for report in reports)


async def test_of_two_pods_of_one_node_the_later_one_reports_and_nothing_flaps(
    api: FakeApi, tmp_path: Path, put_token: PutToken
) -> None:
    """A rolling update with a surge runs two pods at a time."""
    api.pods.put(pod("whisper"))
    put_token(token("uid-of-the-node"))
    async with agent_running(tmp_path / "old", None, None, pod_namespaces="speech") as old:
        await api.until(lambda: api.report("n1"))
        async with agent_running(tmp_path / "new", None, None, pod_namespaces="speech") as new:
            await api.until(lambda: (api.report("n1") or {})["epoch"] == 2)
            await eventually(lambda: "another live agent" in (old.agent.reporter.problem or ""))
            await old.shut_down()
            beats = len(api.beats)
            await api.until(lambda: len(api.beats) > beats)
            assert (new.agent.reporter.state.epoch, new.agent.reporter.problem) == (2, None)
    assert [write.report["epoch"] for write in api.writes] == [1, 2]
    assert all(write.report["capabilities"][0]["ready"] for write in api.writes)


async def test_another_machine_with_the_same_node_name_reports_nothing(
    api: FakeApi, tmp_path: Path, put_token: PutToken
) -> None:
    put_token(token("uid-of-the-node"))
    async with agent_running(tmp_path / "one", None, None, pod_namespaces="speech"):
        await api.until(lambda: api.beats)
        put_token(token("uid-of-another"))
        async with agent_running(tmp_path / "two", None, None, pod_namespaces="speech") as other:
            await eventually(lambda: "another live agent" in (other.agent.reporter.problem or ""), 20)
    assert len(api.writes) == 1


async def test_without_a_node_in_the_token_the_instance_is_that_of_the_state_file(
    api: FakeApi, tmp_path: Path, put_token: PutToken
) -> None:
    put_token("unbound")
    async with agent_running(tmp_path / "one", None, None, pod_namespaces="speech") as it:
        await api.until(lambda: api.report("n1"))
        assert (api.report("n1") or {})["instance"] == it.agent.store.state.instance


async def test_the_watches_of_pods_continue_with_a_rotated_token(
    api: FakeApi, tmp_path: Path, put_token: PutToken
) -> None:
    put_token(token("u", 1))
    api.pods.put(pod("whisper"))
    async with agent_running(tmp_path / "one", None, None, pod_namespaces="speech,llm") as it:
        await api.until(lambda: api.pods.watches == 2 and api.watches == 1)
        for number in (2, 3):
            put_token(token("u", number))
            await api.until(
                lambda number=number: (  # type: ignore[misc]
                    api.connected() == {token("u", number)} and api.pods.watches == 2 and api.watches == 1
                ),
                seconds=30,
            )
        api.allowed = {token("u", 3)}
        api.pods.put(pod("piper", "tts"))
        await api.until(lambda: len((api.report("n1") or {})["services"]) == 2)
        assert sorted(api.pods.lists) == ["llm", "speech"]
        assert it.agent.health().problems == {}
        await it.shut_down()


@pytest.fixture
def in_pod(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment that the chart sets."""
    return environment | {"HOTPOOL_AGENT_NODE": "n1", "HOTPOOL_AGENT_POD_NAMESPACES": "speech, llm"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_exit_of_an_agent_without_a_catalogue_withdraws_nothing(
    tmp_path: Path, in_pod: dict[str, str], number: int
) -> None:
    async with fake_api() as api:
        arguments = ["run", "--kubeconfig", str(api.kubeconfig(tmp_path)), "--interval", "1", "--debounce", "0.1"]
        api.pods.put(pod("whisper"))
        api.pods.put(pod("llama", "llm"), "llm")
        process = await spawn(in_pod, *arguments)
        await api.until(lambda: len((api.report("n1") or {"services": []})["services"]) == 2, seconds=30)
        assert process.returncode is None
        os.kill(process.pid, number)
        result = await finish(process)
        assert result.code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        assert len(api.writes) == 1
        again = await spawn(in_pod, *arguments)
        await api.until(lambda: (api.report("n1") or {})["epoch"] == 2, seconds=30)
        again.send_signal(signal.SIGTERM)
        await finish(again)
        assert [write.report["summary"] for write in api.writes] == ["2/2", "2/2"]


async def test_the_commands_query_the_node_of_the_environment_and_show_pods(
    tmp_path: Path, in_pod: dict[str, str]
) -> None:
    async with fake_api() as api:
        api.pods.put(pod("whisper"))
        api.pods.put(pod("other", "Not A Type"))
        process = await spawn(in_pod, "run", "--kubeconfig", str(api.kubeconfig(tmp_path)))
        await api.until(lambda: api.report("n1"), seconds=30)

        async def run(*arguments: str) -> tuple[int, str]:
            result = await finish(await spawn(in_pod, *arguments))
            return result.code, result.out + result.err

        # The report is incomplete, so the exit code is 4.
        code, out = await run("status")
        assert (code, "pod speech/other: label hotpool.dev/type" in " ".join(out.split())) == (4, True)
        assert "whisper" in out
        assert (await run("stop", "whisper"))[0] == 1
        assert "Kubernetes starts and stops it" in (await run("stop", "whisper"))[1]
        assert (await run("reload")) == (1, "this agent has no catalogue; give it one with --catalogue\n")
        api.pods.delete("other")
        async with asyncio.timeout(20):
            while (await run("status"))[0]:
                pass
        process.send_signal(signal.SIGTERM)
        await finish(process)


async def test_an_agent_without_catalogue_and_namespaces_does_not_start(hotpool_agent: Command) -> None:
    result = await hotpool_agent("run", "--node", "n1")
    assert (result.code, "--catalogue" in result.err, "--pod-namespaces" in result.err) == (2, True, True)


@pytest.mark.parametrize("names", ["Speech", "a.b", "a/b", "a" * 64, "-"])
async def test_an_invalid_namespace_is_rejected_at_the_start(hotpool_agent: Command, names: str) -> None:
    result = await hotpool_agent("run", "--node", "n1", "--pod-namespaces", f"speech,{names}")
    assert (result.code, "--pod-namespaces: " in result.err, names in result.err) == (2, True, True)
