"""Suspend and resume, and clocks that jump (requirements B6, B7, B8): one heartbeat, at most one report, in order.

Requirement B9.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import psutil
import pytest
from tests.support.agent_run import agent_running, eventually
from tests.support.certificates import Authority
from tests.support.fake_api import FakeApi, Fault, fake_api
from tests.support.jumping_clock import jump, jumping

from hotpool.api import meta

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"
HOUR = 3600.0
H = 3


def stamps(api: FakeApi) -> list[tuple[int, int]]:
    return [(write.report["epoch"], write.report["sequence"]) for write in api.writes]


def summary(api: FakeApi) -> str | None:
    return (api.report("n1") or {}).get("summary")


def watch_requests(api: FakeApi) -> int:
    return sum("watch=true" in path for _, path in api.requests)


async def until_heartbeats(api: FakeApi, count: int) -> None:
    """Wait until the server has received `count` heartbeats."""
    await api.until(lambda: len(api.beats) >= count)


async def until_requests(api: FakeApi, count: int) -> None:
    """Wait until the server has received `count` requests."""
    await api.until(lambda: len(api.requests) >= count)


@jumping
async def test_after_a_suspend_there_is_one_heartbeat_and_at_most_one_report(tmp_path: Path) -> None:
    async with fake_api() as api, agent_running(tmp_path, api.kubeconfig(tmp_path), NMT, interval=H) as it:
        await api.until(lambda: api.beats and api.watches)
        for _ in range(2):
            # When this request is answered, the heartbeat's response has arrived, too.
            await it.agent.resources.read_capability()
            beats, reports, resumed = len(api.beats), len(api.writes), time.monotonic()
            jump(HOUR)
            await until_heartbeats(api, beats + 2)
            assert api.beats[beats].at - resumed < H
            assert api.beats[beats + 1].at - api.beats[beats].at >= 0.9 * H
            # The slow refresh was due.
            assert len(api.writes) == reports + 1
        assert stamps(api) == [(1, 1), (1, 2), (1, 3)]
        assert api.most_in_flight == 1
        await it.shut_down()


@jumping
async def test_a_change_that_is_debounced_during_a_suspend_is_in_the_report_that_is_due(tmp_path: Path) -> None:
    async with (
        fake_api() as api,
        agent_running(tmp_path, api.kubeconfig(tmp_path), NMT, interval=H, debounce=60.0) as it,
    ):
        await api.until(lambda: api.beats)
        await it.agent.services.command("start", "idle", wait=True)
        assert summary(api) == "0/1"
        jump(HOUR)
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2)
        assert [write.report["summary"] for write in api.writes] == ["0/1", "1/1"]
        await it.shut_down()


@jumping
async def test_a_report_in_flight_during_a_suspend_is_read_and_not_sent_twice(tmp_path: Path) -> None:
    async with (
        fake_api() as api,
        agent_running(tmp_path, api.kubeconfig(tmp_path), NMT, interval=H, refresh_seconds=1e6) as it,
    ):
        await api.until(lambda: api.beats)
        late = Fault(lambda request: request.path.endswith("/status"), kind="late")
        api.faults.append(late)
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: len(api.writes) == 2)
        jump(HOUR)
        await it.agent.reporter.flush()
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2)
        assert stamps(api) == [(1, 1), (1, 2)]
        assert summary(api) == "1/1"
        await it.shut_down()


@jumping
async def test_an_unavailable_server_gets_no_burst_of_requests_after_suspends(tmp_path: Path) -> None:
    async with fake_api() as api, agent_running(tmp_path, api.kubeconfig(tmp_path), NMT, interval=H) as it:
        await api.until(lambda: api.beats and api.watches)
        unavailable = Fault(lambda _: True, code=503, times=10**6)
        api.faults.append(unavailable)
        for _ in range(5):
            jump(HOUR)
            await until_requests(api, len(api.requests) + 1)
        before = len(api.requests)
        jump(HOUR)
        await eventually(lambda: it.agent.reporter.problem and it.agent.heartbeat.problem and it.agent.watch.problem)
        # Report, heartbeat and watch have tried once; each may have tried a second time by now.
        assert len(api.requests) - before <= 6
        api.faults.remove(unavailable)
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats)
        assert stamps(api) == sorted(set(stamps(api)))
        await it.shut_down()


@jumping
async def test_a_silent_watch_is_closed_after_330_s(tmp_path: Path) -> None:
    async with (
        fake_api() as api,
        agent_running(tmp_path, api.kubeconfig(tmp_path), NMT, interval=H, refresh_seconds=1e6) as it,
    ):
        await api.until(lambda: api.beats and api.watches == 1)
        assert watch_requests(api) == 1
        jump(300)
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats)
        assert watch_requests(api) == 1
        jump(35)
        await api.until(lambda: watch_requests(api) == 2 and api.watches == 1)
        # The new watch delivers events.
        api.delete("nodecapabilities", "n1")
        await api.until(lambda: stamps(api)[-1] == (2, 1))
        await it.shut_down()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_the_kernel_detects_a_dead_peer_of_a_silent_watch_within_30_s(
    tmp_path: Path,
    encrypted: bool,  # noqa: FBT001
) -> None:
    authority = Authority(tmp_path / "pki")
    context = authority.context(authority.issue("server")) if encrypted else None
    async with fake_api(tls=context) as api:
        path = api.kubeconfig(tmp_path, None, {"certificate-authority": str(authority.path)})
        async with agent_running(tmp_path, path, NMT) as it:
            await api.until(lambda: api.watches and api.beats)
            assert list(_keepalive_seconds(int(api.url.rpartition(":")[2]))) == [30]
            await it.shut_down()


@pytest.mark.parametrize("steps", [(-24.0, 24.0, -24.0), (1.0, 0.0, -8000.0)])
async def test_a_wall_clock_that_jumps_changes_neither_the_order_nor_the_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: tuple[float, ...]
) -> None:
    async with fake_api() as api, agent_running(tmp_path, api.kubeconfig(tmp_path), NMT, interval=1) as it:
        await api.until(lambda: api.beats)
        for number, hours in enumerate(steps):
            with _wall_clock(monkeypatch, hours):
                beats, reports = len(api.beats), len(api.writes)
                await it.agent.services.command("stop" if number % 2 else "start", "idle", wait=True)
                await it.agent.reporter.flush()
                await until_heartbeats(api, beats + 2)
                assert reports < len(api.writes) <= reports + 2
        times = [beat.report["renewTime"] for beat in api.beats]
        assert len(set(times)) == len(times)
        paces = [later.at - earlier.at for earlier, later in zip(api.beats, api.beats[1:], strict=False)]
        assert min(paces) >= 0.9
        assert stamps(api) == [(1, number + 1) for number in range(len(api.writes))]
        await it.shut_down()


def _keepalive_seconds(port: int) -> Iterator[int]:
    """Return the seconds until the kernel detects a dead peer, for each connection to the port with keepalive."""
    for connection in psutil.Process().net_connections("tcp"):
        if not connection.raddr or connection.raddr.port != port or connection.fd < 0:
            continue
        with socket.socket(fileno=os.dup(connection.fd)) as copy:
            if copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
                idle, pause, count = (
                    copy.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                )
                yield idle + pause * count


@contextmanager
def _wall_clock(monkeypatch: pytest.MonkeyPatch, hours: float) -> Iterator[None]:
    """Shift the wall clock."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Wrong":
            right = datetime.now(tz) + timedelta(hours=hours)
            return cls.fromtimestamp(right.timestamp(), tz)

    with monkeypatch.context() as patch:
        patch.setattr(meta, "datetime", Wrong)
        yield
