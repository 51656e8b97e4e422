"""Time from a stop to a NodePoolSlice, compared with that from an unready pod to an EndpointSlice.

Both on one cluster in one run, while 1,000 Leases of nodes are renewed every 15 s. EndpointSlice: from before the PATCH
of a pod's Ready condition until a watch of EndpointSlices delivers it. NodePoolSlice: from before the PATCH of a report
until a watch of NodePoolSlices delivers it. 25 Services of 8 pods, 25 pools of 8 members. The two are measured in turn,
in alternating order. The pods are on a simulated Node whose Lease is renewed.
"""

import asyncio
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from benchmarks.cluster import fleets, pools
from benchmarks.nodes import Nodes
from benchmarks.pods import Pods
from benchmarks.watch_latency import ArrivalTimes, Observations, custom_objects
from kubernetes.aio import client, config

from localfleet.fleet import Fleet
from localfleet.metrics_reader import percentiles, spread
from localfleet.process import TooLate

LEASES: Final = 1000
GROUPS: Final = 25
MEMBERS: Final = 8
ROUNDS: Final = 3
STOPS: Final = 100
PAUSE_SECONDS: Final = 0.03
DEADLINE_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 300.0
LOOK_SECONDS: Final = 2.0


class Bench:
    """One run on one fleet."""

    def __init__(self, fleet: Fleet, api: client.ApiClient) -> None:
        self._api = api
        self._fleet = fleet
        self._nodes = Nodes(api, fleet.namespace, LEASES, _type_of)
        self._pods = Pods(api, fleet.namespace, GROUPS, MEMBERS)
        self._arrivals = ArrivalTimes()
        self._change = {"node": self._nodes.report, "pod": self._pods.ready}

    async def run(self) -> dict[str, float]:
        """Return all figures, in milliseconds and as ratios of one round."""
        await self._nodes.create()
        await self._pods.create()
        self._fleet.start_operator()
        await asyncio.to_thread(self._fleet.wait_leading)
        helpers = [
            asyncio.create_task(self._nodes.beat()),
            asyncio.create_task(self._pods.beat()),
            asyncio.create_task(
                self._arrivals.watch(custom_objects(self._api, self._fleet.namespace, "nodepoolslices"), _members)
            ),
            asyncio.create_task(self._arrivals.watch(self._pods.listing, _endpoints)),
        ]
        await self._until_settled()
        rounds: dict[str, list[float]] = defaultdict(list)
        for number in range(ROUNDS):
            sys.stderr.write(f"endpointslice: round {number + 1} of {ROUNDS}\n")
            for name, value in (await self._round()).items():
                rounds[name].append(value)
        for helper in helpers:
            if helper.done():
                helper.result()
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        return {key: value for name, values in rounds.items() for key, value in spread(name, values).items()}

    async def _until_settled(self) -> None:
        """Wait until every Lease is renewed, every pool is full, and the conditions of all nodes are written."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while not await asyncio.to_thread(self._settled):  # noqa: ASYNC110 - the server has no event for it.
                await asyncio.sleep(LOOK_SECONDS)

    def _settled(self) -> bool:
        ready = sum(node["status"].get("ready") == "True" for node in self._fleet.list("nodecapabilities"))
        members = sum(len(item["members"]) for item in self._fleet.list("nodepoolslices"))
        return ready == LEASES and members == GROUPS * MEMBERS

    async def _round(self) -> dict[str, float]:
        """Stop and start pods and nodes in turn; only stops are timed."""
        spent: dict[str, list[float]] = defaultdict(list)
        for flip in range(2 * STOPS):
            number, ready = flip % GROUPS, (flip // GROUPS) % 2 == 1
            for what in sorted(self._change, reverse=flip % 2 == 1):
                milliseconds = await self._flip(what, number, ready=ready)
                if not ready:
                    spent[what].append(milliseconds)
                await asyncio.sleep(PAUSE_SECONDS)
        pods, nodes = percentiles("", spent["pod"]), percentiles("", spent["node"])
        return {
            **{f"stop_to_slice_ratio_endpointslice{part}": nodes[part] / pods[part] for part in pods},
            **{f"stop_to_slice_1000_leases_ms{part}": value for part, value in nodes.items()},
            **{f"stop_to_endpointslice_ms{part}": value for part, value in pods.items()},
        }

    async def _flip(self, what: str, number: int, *, ready: bool) -> float:
        arrival = self._arrivals.expect(what, number, ready=ready)
        started = time.monotonic()
        await self._change[what](number, ready=ready)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return (await arrival - started) * 1000
        except TimeoutError:
            assert self._fleet.operator
            operator = (
                f"the operator {'runs' if self._fleet.operator.running else 'has ended'}: {self._fleet.operator.tail()}"
            )
            raise TooLate(f"{what} {number} was not delivered within {DEADLINE_SECONDS:g} s; {operator}") from None


def _type_of(node: int) -> str:
    return f"type-{node % GROUPS}" if node < GROUPS * MEMBERS else "spare"


def _members(body: Any) -> Observations:
    number = int(body["metadata"]["name"].split("-")[1])
    yield "node", number, any(member["node"] == f"node-{number}" for member in body["members"])


def _endpoints(body: Any) -> Observations:
    number = int(body["metadata"]["labels"]["kubernetes.io/service-name"].split("-")[1])
    for endpoint in body["endpoints"] or []:
        if endpoint["targetRef"]["name"] == f"pod-{number}-0":
            yield "pod", number, endpoint["conditions"]["ready"]


async def _measure(fleet: Fleet, kubeconfig: Path) -> dict[str, float]:
    api: Any = await config.new_client_from_config(str(kubeconfig))
    async with api:
        return await Bench(fleet, api).run()


def measure() -> dict[str, float]:
    """Return all figures of one run."""
    with fleets() as ([fleet], kubeconfig):
        fleet.apply(*pools(GROUPS))
        return asyncio.run(_measure(fleet, kubeconfig))
