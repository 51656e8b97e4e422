"""The agent and network failures (requirements B7-B9): cuts, black holes, slow links.

All connections to the API server go through a relay. The agent may have three at once: one report in flight, one
heartbeat and one watch.
"""

import asyncio
import random
from pathlib import Path

from tests.support.agent_run import Running, agent_running, eventually
from tests.support.fake_api import FakeApi, Fault
from tests.support.faulty_link import HURRIED, NAMES, Line, is_write, stamps, stored
from tests.support.http_services import Plant

MOST_CONNECTIONS = 3
ROUNDS = 20


def misplaced_heartbeats(api: FakeApi) -> list[str]:
    """Return heartbeats with an epoch that no accepted report had, or with an older epoch than a former heartbeat."""
    misplaced, last = [], 0
    for beat in api.beats:
        epoch = int(beat.report["holderIdentity"].rpartition("/")[2])
        accepted = {write.report["epoch"] for write in api.writes if write.at <= beat.at}
        if epoch not in accepted or epoch < last:
            misplaced.append(f"{epoch}, accepted {accepted}, last {last}")
        last = max(last, epoch)
    return misplaced


async def flip(works: Plant, it: Running, chance: random.Random) -> None:
    """Change the health of at least one service; wait until the agent has seen it."""
    for name in chance.sample(NAMES, chance.randint(1, len(NAMES))):
        works.up[name] = not works.up[name]
    await eventually(lambda: {name: it.state(name) == "Running" for name in NAMES} == works.up, 30)


async def outage(way: Line, it: Running, works: Plant, kind: str, chance: random.Random) -> None:
    """Cause one outage, with changes during it. Return after the agent has noticed it and the network is restored."""
    relay = way.relay
    if kind == "delay":
        relay.delay = 0.1
        for _ in range(2):
            await flip(works, it, chance)
        relay.delay = 0.0
        return
    begin, end = (relay.cut, relay.restore) if kind == "cut" else (relay.hold, relay.resume)
    await asyncio.to_thread(begin)
    await flip(works, it, chance)
    await eventually(lambda: it.agent.reporter.problem, 30)
    await flip(works, it, chance)
    await asyncio.to_thread(end)


async def test_after_twenty_outages_the_last_state_is_stored_in_order_over_few_connections(
    way: Line, works: Plant, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311 - an example, the same in each run
    kinds = ["cut", "hold", "delay", "cut"] * (ROUNDS // 4)
    async with agent_running(tmp_path, way.kubeconfig, works.catalogue(), **HURRIED) as it:
        await way.api.until(lambda: stored(way.api) == works.up, 30)
        for kind in kinds:
            await outage(way, it, works, kind, chance)
            await way.api.until(lambda: stored(way.api) == works.up, 30)
        await eventually(lambda: it.agent.reporter.problem is None, 30)
        await eventually(lambda: way.api.watches == 1, 30)
        # Requests held by a black hole may still arrive, and must not take effect.
        await eventually(lambda: way.relay.connections <= MOST_CONNECTIONS, 30)
        assert stored(way.api) == works.up
        assert stamps(way.api) == sorted(set(stamps(way.api)))
        assert {epoch for epoch, _ in stamps(way.api)} == {1}
        assert misplaced_heartbeats(way.api) == []
        assert way.most <= MOST_CONNECTIONS
        await it.shut_down()
    await eventually(lambda: way.relay.connections == 0, 30)
    await eventually(lambda: way.api.watches == 0, 30)


def stored_error(api: FakeApi) -> str:
    """Return the last error of asr in the stored report."""
    return next(str(item["lastError"]) for item in (api.report("n1") or {})["services"] if item["id"] == "asr")


async def test_a_report_that_arrives_after_its_timeout_is_replaced(way: Line, works: Plant, tmp_path: Path) -> None:
    """The state equals the one accepted before, so only the late report differs from it."""
    works.up["asr"] = False
    async with agent_running(tmp_path, way.kubeconfig, works.catalogue(), **HURRIED) as it:
        await way.api.until(lambda: stored(way.api) == works.up, 30)
        await eventually(lambda: it.agent.reporter.problem is None)
        late = Fault(is_write, kind="held")
        way.api.faults.append(late)
        works.down_status = 500
        await eventually(lambda: late.times == 0)
        works.down_status = 503
        await eventually(lambda: "503" in (it.service("asr").machine.last_error or ""))
        await eventually(lambda: it.agent.reporter.problem, 30)
        await eventually(lambda: it.agent.reporter.problem is None, 30)
        late.release.set()
        await eventually(lambda: late.arrived, 30)
        assert "503" in stored_error(way.api)
        await it.shut_down()


async def test_heartbeats_have_no_epoch_before_its_report_is_accepted(way: Line, works: Plant, tmp_path: Path) -> None:
    async with agent_running(tmp_path, way.kubeconfig, works.catalogue(), **HURRIED) as it:
        for epoch in (1, 2, 3):
            await way.api.until(lambda epoch=epoch: stamps(way.api)[-1:] >= [(epoch, 1)], 30)  # type: ignore[misc]
            seen = len(way.api.beats)
            await way.api.until(lambda seen=seen: len(way.api.beats) > seen, 30)  # type: ignore[misc]
            await asyncio.to_thread(way.relay.cut)
            # Deleted while the agent is cut off: it must claim again, and be accepted, before it renews its Lease.
            way.api.delete("nodecapabilities", "n1")
            refused = Fault(lambda request: request.path.endswith("/status"), code=503, times=3)
            way.api.faults.append(refused)
            works.up["asr"] = not works.up["asr"]
            await eventually(lambda: it.agent.reporter.problem, 30)
            await asyncio.to_thread(way.relay.restore)
        await way.api.until(lambda: stamps(way.api)[-1] >= (4, 1), 30)
        assert misplaced_heartbeats(way.api) == []
        await it.shut_down()


async def test_new_credentials_leave_no_connection_of_the_old_session_behind(
    way: Line, works: Plant, tmp_path: Path
) -> None:
    async with agent_running(tmp_path, way.kubeconfig, works.catalogue(), **HURRIED) as it:
        for _ in range(5):
            await way.api.until(lambda: stored(way.api) == works.up and way.api.watches == 1, 30)
            denied = Fault(lambda request: request.path.endswith("/status"), code=401, times=2)
            way.api.faults.append(denied)
            works.up["asr"] = not works.up["asr"]
            await eventually(lambda denied=denied: denied.times == 0, 30)  # type: ignore[misc]
        await way.api.until(lambda: stored(way.api) == works.up and way.api.watches == 1, 30)
        await eventually(lambda: way.relay.connections <= MOST_CONNECTIONS, 30)
        assert way.most <= MOST_CONNECTIONS
        await it.shut_down()
