"""How long the fleet is without a leader: two operators, 50 nodes whose Leases beat, and the leader's end.

A node's stop is reported right after the leader was sent SIGKILL, or SIGTERM; the time is from the signal until a
watch of the slices tells of the stop. Then the ended operator is started again, as the standby, and the roles change.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.cluster import fleets, pools
from benchmarks.nodes import Nodes
from benchmarks.watch_latency import Facts, Told, ours
from kubernetes.aio import client, config

from localfleet.fleet import Fleet
from localfleet.metrics_reader import spread
from localfleet.process import wait_for

NODES: Final = 50
TIMES: Final = 5
DEADLINE_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 3.0
"""Between an operator's listing and the next end of a leader: the standby has looked at the election several times."""


class Bench:
    """One run; `fleets`: the leader's and the standby's."""

    def __init__(self, pair: list[Fleet], api: client.ApiClient) -> None:
        self._leader, self._standby = pair
        self._nodes = Nodes(api, self._leader.namespace, NODES, lambda _: "type-0")
        self._told = Told()
        self._listing = ours(api, self._leader.namespace, "nodepoolslices")

    async def run(self) -> dict[str, float]:
        """Seconds."""
        await self._nodes.create()
        helpers = [
            asyncio.create_task(self._nodes.beat()),
            asyncio.create_task(self._told.watch(self._listing, _members)),
        ]
        await asyncio.sleep(SETTLE_SECONDS)
        figures: dict[str, float] = {}
        for name, number in (("failover_kill_s", signal.SIGKILL), ("failover_term_s", signal.SIGTERM)):
            figures |= spread(name, [await self._end(name, number, node) for node in range(TIMES)])
        for helper in helpers:
            if helper.done():
                helper.result()
            helper.cancel()
        return figures

    async def _end(self, name: str, number: signal.Signals, node: int) -> float:
        """End the leader, report a stop, wait until it is in a slice; then put everything back."""
        sys.stderr.write(f"{name}: {node + 1} of {TIMES}\n")
        assert self._leader.operator
        started = time.monotonic()
        os.kill(self._leader.operator.pid, number)
        seconds = await self._flip(node, ready=False) - started
        await self._flip(node, ready=True)
        await asyncio.to_thread(self._leader.operator.stop)
        self._leader, self._standby = self._standby, self._leader
        self._standby.start_operator()
        await asyncio.to_thread(_wait_listed, self._standby)
        await asyncio.sleep(SETTLE_SECONDS)
        return seconds

    async def _flip(self, node: int, *, ready: bool) -> float:
        moment = self._told.expect("slice", node, ready=ready)
        await self._nodes.report(node, ready=ready)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await moment


def _members(body: Any) -> Facts:
    members = {member["node"] for member in body["members"]}
    return (("slice", node, f"node-{node}" in members) for node in range(NODES))


def _wait_listed(fleet: Fleet) -> None:
    """Until an operator has listed everything: from then on it is a warm standby."""
    wait_for(
        "the standby has listed everything", lambda: "[+] listed" in fleet.ask_operator("readyz")[1], DEADLINE_SECONDS
    )


async def _measure(pair: list[Fleet], kubeconfig: Path) -> dict[str, float]:
    api: Any = await config.new_client_from_config(str(kubeconfig))
    async with api:
        return await Bench(pair, api).run()


def measure() -> dict[str, float]:
    """All figures of one run."""
    with fleets(2) as (pair, kubeconfig):
        leader, standby = pair
        leader.apply(*pools(1))
        leader.start_operator()
        leader.wait_leading()
        standby.start_operator()
        _wait_listed(standby)
        return asyncio.run(_measure(pair, kubeconfig))
