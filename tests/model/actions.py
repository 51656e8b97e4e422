"""Actions of agents and people in a simulation: hot-plug, silence, kubectl and edits by hand.

An action that is impossible in the present state does nothing.
"""

import asyncio
from typing import Any

from tests.model.expected_state import is_paused
from tests.model.simulation import Agent, Simulation
from tests.support.builders import kube_node_object, node_object
from tests.support.service_fleet import SERVICES, SLICES
from tests.support.simulated_fleet import now

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.model import Kind

Json = dict[str, Any]

_REPAIR_SECONDS = 9.0
"""Seconds within which a Service is repaired that lost its label and is in no list."""


class Actions(Simulation):
    """A simulation with agents and people."""

    # Agents.

    def _publish(self, name: str) -> None:
        agent = self.agents[name]
        agent.addresses = self.addresses.get(name, [])
        agent.hardware = self.hardware.get(name)
        stored = self.api.objects[Kind.NODE].get(name)
        if stored is None:
            stored = node_object(name)
            del stored["spec"]
            stored["metadata"].pop("labels")
        status = stored.get("status") or {}
        self.api.put({**stored, "status": {**status, "report": agent.report()}})

    async def do_node(self, name: str, interval: int, services: list[Json]) -> None:
        """Create a node, unless it exists, with its first report and heartbeat."""
        if name not in self.agents and not self.events_lost:
            self.agents[name] = Agent(name, interval)
            self.agents[name].services = services
            self._publish(name)
            self._renew(name)

    async def do_addresses(self, name: str, addresses: list[str]) -> None:
        """Let the next report of an agent have other addresses."""
        self.addresses[name] = addresses

    async def do_hardware(self, name: str, hardware: Json | None) -> None:
        """Let the next report of an agent have other hardware; None: none, as an agent of a former release."""
        self.hardware[name] = hardware

    async def do_again(self, name: str) -> None:
        """Report the same services."""
        agent = self.agents.get(name)
        if agent:
            await self.do_report(name, agent.services, agent.refused)

    async def do_report(self, name: str, services: list[Json], refused: list[str]) -> None:
        """Report other services: hot-plug."""
        agent = self.agents.get(name)
        if agent and agent.alive and (name in self.api.objects[Kind.NODE] or not self.events_lost):
            agent.services, agent.refused = services, refused
            self._publish(name)

    async def do_epoch(self, name: str) -> None:
        """Restart the agent's process."""
        agent = self.agents.get(name)
        if agent and not self.events_lost:
            agent.epoch, agent.sequence, agent.alive, agent.leaving = agent.epoch + 1, 0, True, False
            self._publish(name)

    async def do_leave(self, name: str) -> None:
        """Shut the agent down gracefully."""
        agent = self.agents.get(name)
        if agent and agent.alive and not self.events_lost:
            agent.leaving = True
            self._publish(name)
            agent.alive = False

    async def do_drain(self, name: str, draining: bool) -> None:  # noqa: FBT001 - a step of a script has no keywords.
        """Drain the node at its agent, or end that drain. It survives a restart of the agent."""
        agent = self.agents.get(name)
        if agent and agent.alive and (name in self.api.objects[Kind.NODE] or not self.events_lost):
            agent.draining = draining
            self._publish(name)

    async def do_silence(self, *names: str) -> None:
        """Stop the heartbeats of nodes, as a crash of the machine does."""
        for name in names:
            if name in self.agents and not self.events_lost:
                self.agents[name].alive = False

    async def do_resume(self, *names: str) -> None:
        """Resume the heartbeats of nodes. An agent whose object was deleted creates it again."""
        for name in names:
            agent = self.agents.get(name)
            if agent and not self.events_lost:
                agent.alive = True
                if name not in self.api.objects[Kind.NODE] or agent.leaving:
                    agent.leaving = False
                    self._publish(name)
                await asyncio.sleep(0)
                self._renew(name)

    async def do_stray(self, name: str, epoch: int) -> None:
        """Renew the Lease with another epoch, which is no heartbeat (C2)."""
        agent = self.agents.get(name)
        if agent and epoch != agent.epoch:
            self.foreign_leases.add(name)
            self._renew(name, epoch)

    async def do_repeat(self, name: str) -> None:
        """Deliver an unchanged Lease once more (C2)."""
        if f"{LEASE_PREFIX}{name}" in self.api.leases and self.lease_watch == "open":
            self._deliver_lease(name)

    # v1 Nodes: kubelets, the node controller, clouds and people.

    async def do_kube(self, name: str, state: Json) -> None:
        """Create a v1 Node, or write all of it; `state`: arguments of the builder, such as ready, message, taints."""
        self.api.put(kube_node_object(name, **state))

    # People.

    async def do_edit(self, kind: str, name: str, patch: Json) -> None:
        """Merge-patch an object, as `kubectl patch` does."""
        if name in self.api.objects[Kind(kind)]:
            self.api.edit(Kind(kind), name, patch)

    async def do_delete(self, kind: str, name: str) -> None:
        """Delete an object, as `kubectl delete` does. A pool with a slice without owner stays until its repair."""
        owned = all(
            self.api.objects[Kind.SLICE][one]["metadata"].get("ownerReferences") for one in self.api.slices(name)
        )
        if name in self.api.objects[Kind(kind)] and owned:
            self.api.delete(Kind(kind), name)

    async def do_put(self, body: Json) -> None:
        """Create an object, as `kubectl create` does, unless it exists."""
        kinds = {"NodePool": Kind.POOL, "NodePoolGenerator": Kind.GENERATOR}
        if body["metadata"]["name"] not in self.api.objects[kinds[body["kind"]]]:
            self.api.put(body)

    async def do_slice(self, number: int, change: str) -> None:
        """Edit or delete a slice by hand (D10)."""
        names = sorted(self.api.objects[Kind.SLICE])
        if not names:
            return
        name = names[number % len(names)]
        body = self.api.objects[Kind.SLICE][name]
        pool = (body["metadata"].get("labels") or {}).get("hotpool.dev/pool")
        if pool not in self.api.objects[Kind.POOL] or is_paused(self.api.objects[Kind.POOL][pool]):
            return
        self.expected.removable_by_silence |= {(pool, node) for node in self.api.members(pool)}
        stranger = {"node": "stranger", "state": "Ready", "since": "2026-01-01T00:00:00.000000Z"}
        edits: dict[str, Json] = {
            "empty": {"members": []},
            "stranger": {"members": [stranger, *body["members"]][:3]},
            "twice": {"members": [*body["members"], *self._elsewhere(pool, name)][: len(body["members"]) + 1]},
            "owner": {"metadata": {"ownerReferences": None}},
            "label": {"metadata": {"labels": None}},
        }
        if change == "delete":
            self.api.delete(Kind.SLICE, name)
        else:
            self.api.edit(Kind.SLICE, name, edits[change])

    async def do_service(self, number: int, change: str) -> None:
        """Edit or delete a Service by hand."""
        await self._edit_core(
            SERVICES,
            number,
            change,
            {
                "selector": {"spec": {"selector": {"app": "x"}}},
                "label": {"metadata": {"labels": None}},
                "owner": {"metadata": {"ownerReferences": None}},
                "ports": {"spec": {"ports": [{"name": "x", "port": 1}]}},
                "term": {"metadata": {"annotations": None}},
            },
        )

    async def do_endpointslice(self, number: int, change: str) -> None:
        """Edit or delete an EndpointSlice by hand."""
        stranger = {"addresses": ["10.0.9.9"], "conditions": {"ready": True, "serving": True, "terminating": False}}
        await self._edit_core(
            SLICES,
            number,
            change,
            {
                "empty": {"endpoints": []},
                "stranger": {"endpoints": [stranger]},
                "label": {"metadata": {"labels": {"service.hotpool.dev/pool": None}}},
                "service": {"metadata": {"labels": {"kubernetes.io/service-name": "x"}}},
                "owner": {"metadata": {"ownerReferences": None}},
            },
        )

    async def _edit_core(self, plural: str, number: int, change: str, edits: dict[str, Json]) -> None:
        """Edit or delete an object that a pool has, unless the pool is paused, or an edit may not be repaired yet.

        Without label, term and owner at once nothing shows whose object it is.
        """
        names = sorted(self.api.core[plural])
        settled = not self.api.fault and now() >= max(self.services_unsettled_until, self.unsettled_until)
        if not names or not self.leader or not settled:
            return
        name = names[number % len(names)]
        pool = (self.api.core[plural][name]["metadata"].get("labels") or {}).get("service.hotpool.dev/pool")
        if pool not in self.api.objects[Kind.POOL] or is_paused(self.api.objects[Kind.POOL][pool]):
            return
        self.services_unsettled_until = now() + _REPAIR_SECONDS
        if change == "delete":
            self.api.delete_core(plural, name)
        else:
            self.api.edit_core(plural, name, edits[change])

    def _elsewhere(self, pool: str, name: str) -> list[Json]:
        """Return the members of the pool's other slices."""
        others = [self.api.objects[Kind.SLICE][other] for other in self.api.slices(pool) if other != name]
        return [item for other in others for item in other["members"]]

    async def do_generated(self, number: int, change: str) -> None:
        """Edit or delete a generated pool by hand (D5)."""
        pools = self.api.objects[Kind.POOL]
        names = sorted(name for name, body in pools.items() if body["spec"].get("generated"))
        if not names:
            return
        name = names[number % len(names)]
        if change == "delete":
            self.checks.generators.on_deleted(name)
            self.api.delete(Kind.POOL, name)
        else:
            self.checks.generators.edited_by_hand.add(name)
            self.api.edit(Kind.POOL, name, {"spec": {"minMembers": 77, "generated": None}})
