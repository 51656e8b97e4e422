"""Time without a leader: two operators, 50 nodes with heartbeats, and a signal that ends the leader.

A node's stop is reported right after SIGKILL or SIGTERM to the leader. The time is from the signal until a watch of the
slices delivers the stop. Then the ended operator is started again as the standby, and the roles change.
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
from benchmarks.watch_latency import ArrivalTimes, Observations, custom_objects
from kubernetes.aio import client, config

from hotpool.kube.leader_election import RETRY_SECONDS
from localfleet.fleet import Fleet
from localfleet.metrics_reader import spread
from localfleet.process import wait_for

NODES: Final = 50
TIMES: Final = 5
DEADLINE_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 3.0
"""Time from an operator's listing to the next signal, in which the standby reads the election Lease several times."""


class Bench:
    """One run; `pair`: the leader's fleet and the standby's."""

    def __init__(self, pair: list[Fleet], api: client.ApiClient) -> None:
        self._leader, self._standby = pair
        self._nodes = Nodes(api, self._leader.namespace, NODES, lambda _: "type-0")
        self._arrivals = ArrivalTimes()
        self._listing = custom_objects(api, self._leader.namespace, "nodepoolslices")

    async def run(self) -> dict[str, float]:
        """Return all figures, in seconds."""
        await self._nodes.create()
        helpers = [
            asyncio.create_task(self._nodes.beat()),
            asyncio.create_task(self._arrivals.watch(self._listing, _members)),
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
        """End the leader, report a stop, return the seconds until it is in a slice. Restores two running operators."""
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
        # At another time between two reads of the standby for each signal, which would else be the same for all.
        await asyncio.sleep(SETTLE_SECONDS + node / TIMES * RETRY_SECONDS)
        return seconds

    async def _flip(self, node: int, *, ready: bool) -> float:
        arrival = self._arrivals.expect("slice", node, ready=ready)
        await self._nodes.report(node, ready=ready)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await arrival


def _members(body: Any) -> Observations:
    members = {member["node"] for member in body["members"]}
    return (("slice", node, f"node-{node}" in members) for node in range(NODES))


def _wait_listed(fleet: Fleet) -> None:
    """Wait until an operator has listed everything and is a warm standby."""
    wait_for(
        "the standby has listed everything", lambda: "[+] listed" in fleet.ask_operator("readyz")[1], DEADLINE_SECONDS
    )


async def _measure(pair: list[Fleet], kubeconfig: Path) -> dict[str, float]:
    api: Any = await config.new_client_from_config(str(kubeconfig))
    async with api:
        return await Bench(pair, api).run()


def measure() -> dict[str, float]:
    """Return all figures of one run."""
    with fleets(2) as (pair, kubeconfig):
        leader, standby = pair
        leader.apply(*pools(1))
        leader.start_operator()
        leader.wait_leading()
        standby.start_operator()
        _wait_listed(standby)
        return asyncio.run(_measure(pair, kubeconfig))
