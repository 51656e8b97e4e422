"""The agent and network failures (requirements B7-B9): cuts, black holes, slow links.

All connections to the API server go through a relay. The agent may have three at once: one report in flight, one
heartbeat and one watch.
"""

import asyncio
import random
from pathlib import Path

from tests.support.agent_run import Running, agent_running, eventually
from tests.support.fake_api import FakeApi, Fault
from tests.support.faulty_link import SERVICE_NAMES, SHORT_TIMES, FaultyLink, is_write, ready_types, report_versions
from tests.support.http_services import HttpServices

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


async def flip(observed: HttpServices, it: Running, chance: random.Random) -> None:
    """Change the health of at least one service; wait until the agent has seen it."""
    for name in chance.sample(SERVICE_NAMES, chance.randint(1, len(SERVICE_NAMES))):
        observed.up[name] = not observed.up[name]
    await eventually(lambda: {name: it.state(name) == "Running" for name in SERVICE_NAMES} == observed.up, 30)


async def outage(link: FaultyLink, it: Running, observed: HttpServices, kind: str, chance: random.Random) -> None:
    """Cause one outage, with changes during it. Return after the agent has noticed it and the network is restored."""
    relay = link.relay
    if kind == "delay":
        relay.delay = 0.1
        for _ in range(2):
            await flip(observed, it, chance)
        relay.delay = 0.0
        return
    begin, end = (relay.cut, relay.restore) if kind == "cut" else (relay.hold, relay.resume)
    await asyncio.to_thread(begin)
    await flip(observed, it, chance)
    await eventually(lambda: it.agent.reporter.problem, 30)
    await flip(observed, it, chance)
    await asyncio.to_thread(end)


async def test_after_twenty_outages_the_last_state_is_stored_in_order_over_few_connections(
    link: FaultyLink, observed: HttpServices, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311 - an example, the same in each run
    kinds = ["cut", "hold", "delay", "cut"] * (ROUNDS // 4)
    async with agent_running(tmp_path, link.kubeconfig, observed.catalogue(), **SHORT_TIMES) as it:
        await link.api.until(lambda: ready_types(link.api) == observed.up, 30)
        for kind in kinds:
            await outage(link, it, observed, kind, chance)
            await link.api.until(lambda: ready_types(link.api) == observed.up, 30)
        await eventually(lambda: it.agent.reporter.problem is None, 30)
        await eventually(lambda: link.api.watches == 1, 30)
        # Requests held by a black hole may still arrive, and must not take effect.
        await eventually(lambda: link.relay.connections <= MOST_CONNECTIONS, 30)
        assert ready_types(link.api) == observed.up
        assert report_versions(link.api) == sorted(set(report_versions(link.api)))
        assert {epoch for epoch, _ in report_versions(link.api)} == {1}
        assert misplaced_heartbeats(link.api) == []
        assert link.most <= MOST_CONNECTIONS
        await it.shut_down()
    await eventually(lambda: link.relay.connections == 0, 30)
    await eventually(lambda: link.api.watches == 0, 30)


def stored_error(api: FakeApi) -> str:
    """Return the last error of asr in the stored report."""
    return next(str(item["lastError"]) for item in (api.report("n1") or {})["services"] if item["id"] == "asr")


async def test_a_report_that_arrives_after_its_timeout_is_replaced(
    link: FaultyLink, observed: HttpServices, tmp_path: Path
) -> None:
    """The state equals the one accepted before, so only the late report differs from it."""
    observed.up["asr"] = False
    async with agent_running(tmp_path, link.kubeconfig, observed.catalogue(), **SHORT_TIMES) as it:
        await link.api.until(lambda: ready_types(link.api) == observed.up, 30)
        await eventually(lambda: it.agent.reporter.problem is None)
        late = Fault(is_write, kind="held")
        link.api.faults.append(late)
        observed.down_status = 500
        await eventually(lambda: late.times == 0)
        observed.down_status = 503
        await eventually(lambda: "503" in (it.service("asr").machine.last_error or ""))
        await eventually(lambda: it.agent.reporter.problem, 30)
        await eventually(lambda: it.agent.reporter.problem is None, 30)
        late.release.set()
        await eventually(lambda: late.arrived, 30)
        assert "503" in stored_error(link.api)
        await it.shut_down()


async def test_heartbeats_have_no_epoch_before_its_report_is_accepted(
    link: FaultyLink, observed: HttpServices, tmp_path: Path
) -> None:
    async with agent_running(tmp_path, link.kubeconfig, observed.catalogue(), **SHORT_TIMES) as it:
        for epoch in (1, 2, 3):
            await link.api.until(lambda epoch=epoch: report_versions(link.api)[-1:] >= [(epoch, 1)], 30)  # type: ignore[misc]
            seen = len(link.api.beats)
            await link.api.until(lambda seen=seen: len(link.api.beats) > seen, 30)  # type: ignore[misc]
            await asyncio.to_thread(link.relay.cut)
            # Deleted while the agent is cut off: it must claim again, and be accepted, before it renews its Lease.
            link.api.delete("nodecapabilities", "n1")
            refused = Fault(lambda request: request.path.endswith("/status"), code=503, times=3)
            link.api.faults.append(refused)
            observed.up["asr"] = not observed.up["asr"]
            await eventually(lambda: it.agent.reporter.problem, 30)
            await asyncio.to_thread(link.relay.restore)
        await link.api.until(lambda: report_versions(link.api)[-1] >= (4, 1), 30)
        assert misplaced_heartbeats(link.api) == []
        await it.shut_down()


async def test_new_credentials_leave_no_connection_of_the_old_session_behind(
    link: FaultyLink, observed: HttpServices, tmp_path: Path
) -> None:
    async with agent_running(tmp_path, link.kubeconfig, observed.catalogue(), **SHORT_TIMES) as it:
        for _ in range(5):
            await link.api.until(lambda: ready_types(link.api) == observed.up and link.api.watches == 1, 30)
            denied = Fault(lambda request: request.path.endswith("/status"), code=401, times=2)
            link.api.faults.append(denied)
            observed.up["asr"] = not observed.up["asr"]
            await eventually(lambda denied=denied: denied.times == 0, 30)  # type: ignore[misc]
        await link.api.until(lambda: ready_types(link.api) == observed.up and link.api.watches == 1, 30)
        await eventually(lambda: link.relay.connections <= MOST_CONNECTIONS, 30)
        assert link.most <= MOST_CONNECTIONS
        await it.shut_down()
