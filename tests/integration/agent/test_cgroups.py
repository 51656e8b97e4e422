"""A cgroup v2 for each service (requirement A9), in a real agent with a cgroup2 mount of its own."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.agent_process import Command, daemon
from tests.support.agent_run import eventually
from tests.support.fake_api import FakeApi
from tests.support.not_run import not_run
from tests.support.own_cgroup import OwnCgroup, own_cgroup

from hotpool_agent.services import cgroups
from hotpool_agent.services.members import Members
from localfleet.kind import REPOSITORY

SAMPLES = REPOSITORY / "tests" / "support" / "samples"


@pytest.fixture
def cgroup(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OwnCgroup | None]:
    """A cgroup of the test's own; None where the machine does not allow it."""
    with own_cgroup(tmp_path / "cgroup") as own:
        if own is None:
            not_run(request, "a cgroup2 mount needs root and a kernel that allows it")
        yield own


def cgroup_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


async def test_a_daemon_without_session_parent_or_environment_of_its_service_is_ended_by_its_cgroup(
    api: FakeApi,
    tmp_path: Path,
    environment: dict[str, str],
    hotpool_agent: Command,
    cgroup: OwnCgroup | None,
) -> None:
    if cgroup is None:
        return
    file = tmp_path / "worker"
    command = f"[{sys.executable}, {SAMPLES / 'workers.py'}, bare-daemon, {file}]"
    entry = f"- {{id: s, type: asr, preStopSeconds: 0, run: {{command: {command}}}}}\n"
    quick = environment | {"HOTPOOL_AGENT_STOP_SECONDS": "0.3"}
    async with daemon(api, tmp_path, quick, entry, inside=cgroup.inside) as agent:
        assert (await hotpool_agent("start", "s", "--node", "n1")).code == 0
        await eventually(file.exists)
        worker = psutil.Process(int(file.read_text(encoding="ascii")))
        path = cgroup_of(worker.pid)
        assert path.startswith(f"/{cgroup.name}/hotpool-")
        assert path.endswith("-s")
        assert cgroup_of(agent.pid) == f"/{cgroup.name}"
        assert worker.is_running()
        assert (await hotpool_agent("stop", "s", "--node", "n1")).out == "s: Stopped\n"
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
        assert cgroups_below(agent.pid, cgroup) == []


@pytest.mark.parametrize("left", ["a daemon that only the cgroup shows", "an empty cgroup"])
async def test_the_next_agent_ends_what_is_in_the_cgroup_of_a_service_without_a_process_and_removes_it(
    api: FakeApi,
    tmp_path: Path,
    environment: dict[str, str],
    hotpool_agent: Command,
    cgroup: OwnCgroup | None,
    *,
    left: str,
) -> None:
    if cgroup is None:
        return
    file = tmp_path / "worker"
    words = f"{SAMPLES / 'workers.py'}, bare-daemon, {file}"
    entry = "- {{id: {}, type: asr, run: {{command: [{}, {}]}}}}\n"
    quick = environment | {"HOTPOOL_AGENT_STOP_SECONDS": "0.3"}
    async with daemon(api, tmp_path, quick, entry.format("s", sys.executable, words), inside=cgroup.inside) as agent:
        assert (await hotpool_agent("start", "s", "--node", "n1")).code == 0
        await eventually(file.exists)
        agent.kill()
        await agent.wait()
    worker = psutil.Process(int(file.read_text(encoding="ascii")))
    programs = [it for it in psutil.process_iter(["cmdline"]) if str(file) in (it.info["cmdline"] or ())]
    ended = [it for it in programs if it != worker or left == "an empty cgroup"]
    for process in ended:
        process.kill()
    await eventually(lambda: not any(map(lives, ended)))
    other, reports = entry.format("other", "cat", ""), len(api.writes)
    async with daemon(api, tmp_path, quick, other, inside=cgroup.inside) as agent:
        await api.until(lambda: len(api.writes) > reports)
        await eventually(lambda: cgroups_below(agent.pid, cgroup) == [])
        assert not lives(worker)


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def test_a_start_that_fails_leaves_no_cgroup(
    api: FakeApi,
    tmp_path: Path,
    environment: dict[str, str],
    hotpool_agent: Command,
    cgroup: OwnCgroup | None,
) -> None:
    if cgroup is None:
        return
    entry = "- {id: s, type: asr, run: {command: [/no/such/program]}}\n"
    async with daemon(api, tmp_path, environment, entry, inside=cgroup.inside) as agent:
        assert "/no/such/program" in (await hotpool_agent("start", "s", "--node", "n1")).err
        await hotpool_agent("stop", "s", "--node", "n1")
        assert cgroups_below(agent.pid, cgroup) == []


def cgroups_below(agent: int, cgroup: OwnCgroup) -> list[str]:
    """Return the names of the cgroups of services, as the agent sees them."""
    folder = Path(f"/proc/{agent}/root") / str(cgroup.mount / cgroup.name).lstrip("/")
    return [path.name for path in folder.iterdir() if path.is_dir()]


def test_an_agent_without_a_delegated_cgroup_creates_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root may write everywhere, also below the cgroups of systemd, which owns them."""
    (tmp_path / "cgroup.procs").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not cgroups._is_delegated(tmp_path, is_root=False)  # noqa: SLF001
    assert not cgroups._is_delegated(tmp_path, is_root=True)  # noqa: SLF001
    (tmp_path / "cgroup.events").touch()
    assert cgroups._is_delegated(tmp_path, is_root=True)  # noqa: SLF001
    assert not cgroups._is_delegated(tmp_path, is_root=False)  # noqa: SLF001


def test_an_agent_of_another_user_needs_a_cgroup_that_it_may_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not cgroups._is_delegated(tmp_path, is_root=True)  # noqa: SLF001
    (tmp_path / "cgroup.procs").touch()
    assert cgroups._is_delegated(tmp_path, is_root=False)  # noqa: SLF001
    assert not cgroups._is_delegated(tmp_path / "none", is_root=False)  # noqa: SLF001


def test_without_cgroup_kill_nothing_is_created_and_nothing_raises(tmp_path: Path) -> None:
    group = cgroups.Cgroup(tmp_path / "s")
    assert group.open() is None
    group.kill()
    assert group.pids() == set()
    assert list(group.path.iterdir()) == []
    (group.path / "below").mkdir()
    group.remove()
    assert not group.path.exists()
    assert cgroups.Cgroup(tmp_path / "no" / "s").open() is None


def test_kill_ends_the_whole_cgroup_and_other_signals_only_the_processes_that_were_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Members that are created meanwhile are in the cgroup as well."""
    monkeypatch.setattr(cgroups, "of_service", lambda _: cgroups.Cgroup(tmp_path))
    order = tmp_path / "cgroup.kill"
    order.touch()
    service = Members("folder:s", (0, 0))
    service.send(signal.SIGTERM, [])
    assert order.read_text(encoding="ascii") == ""
    service.send(signal.SIGKILL, [])
    assert order.read_text(encoding="ascii") == "1"
