"""Observed systemd units (requirements A3, A5): real D-Bus messages over a real socket; systemd is a stand-in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.agent_run import eventually
from tests.support.fake_bus import FakeBus, Unit, fake_bus
from tests.support.probing import observe_spec, running_prober, until_result

from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober

UNIT: Final = "whisper.service"
CHECK: Final = {"systemd": {"unit": UNIT}}


@pytest.fixture
async def prober(tmp_path: Path) -> AsyncIterator[Prober]:
    async with running_prober(tmp_path) as prober:
        yield prober


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeBus]:
    async with fake_bus(tmp_path) as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        yield bus


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("active", ProbeResult(ok=True, pid=4711)),
        ("reloading", ProbeResult(ok=True, pid=4711)),
        ("inactive", ProbeResult(ok=False, absent=True, detail=f"{UNIT}: inactive")),
        ("failed", ProbeResult(ok=False, conclusive=True, detail=f"{UNIT}: failed")),
        ("activating", ProbeResult(ok=False, detail=f"{UNIT}: activating")),
        ("deactivating", ProbeResult(ok=False, detail=f"{UNIT}: deactivating")),
        ("what-comes-later", ProbeResult(ok=False, detail=f"{UNIT}: what-comes-later")),
    ],
)
async def test_the_state_of_a_unit_is_that_of_systemd(
    prober: Prober, bus: FakeBus, state: str, expected: ProbeResult
) -> None:
    bus.units[UNIT] = Unit(state, 4711)
    assert await prober.probe(observe_spec(CHECK), None) == expected


async def test_a_unit_that_is_not_loaded_is_absent(prober: Prober, bus: FakeBus) -> None:
    detail = f"{UNIT}: Unit {UNIT} not loaded."
    assert await prober.probe(observe_spec(CHECK), None) == ProbeResult(ok=False, absent=True, detail=detail)
    assert bus.connections == 1


async def test_a_unit_without_a_main_process_has_no_pid(prober: Prober, bus: FakeBus) -> None:
    bus.units |= {UNIT: Unit(), "speech.target": Unit()}
    assert await prober.probe(observe_spec(CHECK), None) == ProbeResult(ok=True)
    assert await prober.probe(observe_spec({"systemd": {"unit": "speech.target"}}), None) == ProbeResult(ok=True)


async def test_one_connection_serves_all_probes(prober: Prober, bus: FakeBus) -> None:
    bus.units |= {f"s{number}.service": Unit(pid=number) for number in range(1, 9)}
    checks = [observe_spec({"systemd": {"unit": unit}}) for unit in bus.units]
    results = await asyncio.gather(*(prober.probe(check, None) for check in checks * 3))
    assert [result.pid for result in results] == [*range(1, 9)] * 3
    assert bus.connections == 1


async def test_the_user_s_systemd_is_on_another_bus(
    prober: Prober, bus: FakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.units[UNIT] = Unit(pid=1)
    check = observe_spec({"systemd": {"unit": UNIT, "user": True}})
    (tmp_path / "user").mkdir()
    async with fake_bus(tmp_path / "user") as users:
        users.units[UNIT] = Unit(pid=2)
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", users.address)
        assert (await prober.probe(observe_spec(CHECK), None)).pid == 1
        assert (await prober.probe(check, None)).pid == 2
        # Without an address: the default path of the user's bus.
        monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "user"))
        async with running_prober(tmp_path) as another:
            assert (await another.probe(check, None)).pid == 2


async def test_a_missing_bus_is_a_failure_and_no_absence(
    prober: Prober, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, reason in (
        (f"unix:path={tmp_path}/none", "No such file or directory"),
        ("nonsense", "address did not contain a transport"),
        ("carrier:pigeon=1", "got unknown address transport: carrier"),
    ):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        assert await prober.probe(observe_spec(CHECK), None) == ProbeResult(ok=False, detail=f"system bus: {reason}")


async def test_a_bus_without_systemd_or_without_access_is_a_failure(prober: Prober, bus: FakeBus) -> None:
    bus.systemd = False
    assert await prober.probe(observe_spec(CHECK), None) == ProbeResult(ok=False, detail="systemd is not on the bus")
    await bus.die()
    await bus.start()
    bus.refused = True
    refused = await prober.probe(observe_spec(CHECK), None)
    assert (refused.ok, refused.absent) == (False, False)
    assert refused.detail.startswith("system bus: authentication failed")


async def test_an_error_is_a_failure_and_no_absence(prober: Prober, bus: FakeBus) -> None:
    bus.errors["GetUnit"] = "org.freedesktop.DBus.Error.AccessDenied"
    assert await prober.probe(observe_spec(CHECK), None) == ProbeResult(ok=False, detail=f"{UNIT}: No.")
    bus.errors.clear()
    bus.units[UNIT] = Unit()
    assert await prober.probe(observe_spec(CHECK), None) == ProbeResult(ok=True)
    assert bus.connections == 1


async def test_a_restarted_bus_is_connected_again(prober: Prober, bus: FakeBus) -> None:
    bus.units[UNIT] = Unit(pid=7)
    assert (await prober.probe(observe_spec(CHECK), None)).ok
    await bus.die()
    gone = await prober.probe(observe_spec(CHECK), None)
    assert (gone.ok, gone.absent) == (False, False)
    await bus.start()
    await until_result(prober, observe_spec(CHECK), lambda result: result == ProbeResult(ok=True, pid=7))
    assert bus.open == 1


async def test_a_bus_that_dies_during_a_probe_is_a_failure(prober: Prober, bus: FakeBus) -> None:
    bus.silent = {"GetUnit"}
    probing = asyncio.create_task(prober.probe(observe_spec(CHECK), None))
    await eventually(lambda: "GetUnit" in bus.calls)
    await bus.die()
    assert await probing == ProbeResult(ok=False, detail="system bus: the connection was closed")


@pytest.mark.parametrize("step", ["AUTH", "Hello", "GetUnit", "Get"])
async def test_a_bus_that_never_answers_is_a_failure(prober: Prober, bus: FakeBus, step: str) -> None:
    bus.units[UNIT] = Unit()
    bus.silent = {step}
    for _ in range(3):
        assert await prober.probe(observe_spec(CHECK, 0.05), None) == ProbeResult(
            ok=False, detail="no answer in 0.05 s"
        )
    bus.silent = set()
    assert await prober.probe(observe_spec(CHECK), None) == ProbeResult(ok=True)
    # The connections of cancelled probes are closed.
    await eventually(lambda: bus.open == 1)
    assert bus.connections > 1


async def test_a_cancelled_probe_does_not_end_another(prober: Prober, bus: FakeBus) -> None:
    bus.units |= {UNIT: Unit(pid=7), "slow.service": Unit(pid=8)}
    bus.silent = {UNIT, "slow.service"}
    slow = asyncio.create_task(prober.probe(observe_spec({"systemd": {"unit": "slow.service"}}), None))
    await eventually(lambda: "GetUnit" in bus.calls)
    assert not (await prober.probe(observe_spec(CHECK, 0.05), None)).ok
    assert not slow.done()
    assert bus.open == 1
    bus.silent = set()
    assert (await prober.probe(observe_spec(CHECK), None)).pid == 7
    assert bus.open == 2
    slow.cancel()
    await eventually(lambda: bus.open == 1)
