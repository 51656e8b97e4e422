"""What agents and people do in a world: the verbs of hot-plug, silence, kubectl and edits by hand.

Between `tests.model.simulation` and `tests.model.scenario`. A verb does nothing where it makes no sense.
"""

import asyncio
from typing import Any

from tests.model.expected_state import is_paused
from tests.model.simulation import Agent, Ground
from tests.support.builders import node_object

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.model import Kind

Json = dict[str, Any]


class People(Ground):
    """A world with agents and people in it."""

    # Agents.

    def _publish(self, name: str) -> None:
        agent = self.agents[name]
        stored = self.api.objects[Kind.NODE].get(name)
        if stored is None:
            stored = node_object(name)
            del stored["spec"]
            stored["metadata"].pop("labels")
        status = stored.get("status") or {}
        self.api.put({**stored, "status": {**status, "report": agent.report()}})

    async def do_node(self, name: str, interval: int, services: list[Json]) -> None:
        """A node comes for the first time, or is registered again."""
        if name not in self.agents and not self.blind:
            self.agents[name] = Agent(name, interval)
            self.agents[name].services = services
            self._publish(name)
            self._renew(name)

    async def do_report(self, name: str, services: list[Json], refused: list[str]) -> None:
        """Hot-plug."""
        agent = self.agents.get(name)
        if agent and agent.beats and (name in self.api.objects[Kind.NODE] or not self.blind):
            agent.services, agent.refused = services, refused
            self._publish(name)

    async def do_epoch(self, name: str) -> None:
        """The agent's process is a new one."""
        agent = self.agents.get(name)
        if agent and not self.blind:
            agent.epoch, agent.sequence, agent.beats, agent.leaving = agent.epoch + 1, 0, True, False
            self._publish(name)

    async def do_leave(self, name: str) -> None:
        """A graceful shut-down."""
        agent = self.agents.get(name)
        if agent and agent.beats and not self.blind:
            agent.leaving = True
            self._publish(name)
            agent.beats = False

    async def do_silence(self, *names: str) -> None:
        """Machines die."""
        for name in names:
            if name in self.agents and not self.blind:
                self.agents[name].beats = False

    async def do_speak(self, *names: str) -> None:
        """They come back; the agent makes its object again where it is gone."""
        for name in names:
            agent = self.agents.get(name)
            if agent and not self.blind:
                agent.beats = True
                if name not in self.api.objects[Kind.NODE] or agent.leaving:
                    agent.leaving = False
                    self._publish(name)
                await asyncio.sleep(0)
                self._renew(name)

    async def do_stray(self, name: str, epoch: int) -> None:
        """Something else renews the Lease: no heartbeat (C2)."""
        agent = self.agents.get(name)
        if agent and epoch != agent.epoch:
            self.strayed.add(name)
            self._renew(name, epoch)

    async def do_repeat(self, name: str) -> None:
        """The stream brings a Lease that has not changed (C2)."""
        if f"{LEASE_PREFIX}{name}" in self.api.leases and self.stream == "open":
            self._tell_lease(name)

    # People.

    async def do_edit(self, kind: str, name: str, patch: Json) -> None:
        """As kubectl patch."""
        if name in self.api.objects[Kind(kind)]:
            self.api.edit(Kind(kind), name, patch)

    async def do_delete(self, kind: str, name: str) -> None:
        """As kubectl delete."""
        owned = all(
            self.api.objects[Kind.SLICE][one]["metadata"].get("ownerReferences") for one in self.api.slices(name)
        )
        if name in self.api.objects[Kind(kind)] and owned:  # a slice without an owner is put right first
            self.api.delete(Kind(kind), name)

    async def do_put(self, body: Json) -> None:
        """As kubectl create; nothing where there is one."""
        kinds = {"NodePool": Kind.POOL, "NodePoolGenerator": Kind.GENERATOR}
        if body["metadata"]["name"] not in self.api.objects[kinds[body["kind"]]]:
            self.api.put(body)

    async def do_slice(self, number: int, what: str) -> None:
        """Somebody edits or deletes a slice by hand (D10)."""
        names = sorted(self.api.objects[Kind.SLICE])
        if not names:
            return
        name = names[number % len(names)]
        body = self.api.objects[Kind.SLICE][name]
        pool = (body["metadata"].get("labels") or {}).get("hotpool.dev/pool")
        if pool not in self.api.objects[Kind.POOL] or is_paused(self.api.objects[Kind.POOL][pool]):
            return
        self.truth.released |= {(pool, node) for node in self.api.members(pool)}
        stranger = {"node": "stranger", "state": "Ready", "since": "2026-01-01T00:00:00.000000Z"}
        edits: dict[str, Json] = {
            "empty": {"members": []},
            "stranger": {"members": [stranger, *body["members"]][:3]},
            "twice": {"members": [*body["members"], *self._elsewhere(pool, name)][: len(body["members"]) + 1]},
            "owner": {"metadata": {"ownerReferences": None}},
            "label": {"metadata": {"labels": None}},
        }
        if what == "delete":
            self.api.delete(Kind.SLICE, name)
        else:
            self.api.edit(Kind.SLICE, name, edits[what])

    def _elsewhere(self, pool: str, name: str) -> list[Json]:
        """The members of the pool's other slices."""
        others = [self.api.objects[Kind.SLICE][other] for other in self.api.slices(pool) if other != name]
        return [item for other in others for item in other["members"]]

    async def do_generated(self, number: int, what: str) -> None:
        """Somebody edits or deletes a generated pool by hand (D5)."""
        pools = self.api.objects[Kind.POOL]
        names = sorted(name for name, body in pools.items() if body["spec"].get("generated"))
        if not names:
            return
        name = names[number % len(names)]
        if what == "delete":
            self.checks.generators.deleted(name)
            self.api.delete(Kind.POOL, name)
        else:
            self.checks.generators.edited.add(name)
            self.api.edit(Kind.POOL, name, {"spec": {"minMembers": 77, "generated": None}})
