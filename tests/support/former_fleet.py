"""A fleet as the release before endpoints leaves it: definitions, rights, pools, slices and Redis.

Today's operator stands for the former one: under the former definitions the API server stores reports and pools as
those of the former release, and Redis is reduced to what the former operator wrote.
"""

import json
import threading
from collections.abc import Iterable
from typing import Any, Final, Self

import redis
import yaml
from tests.support.fleet_objects import pool
from tests.support.former_definitions import CRDS, former_definitions
from tests.support.simulated_agents import SimulatedAgents

from hotpool.projection.functions import LIBRARY
from hotpool.projection.keys import DEFAULT_PREFIX, STATES, FleetKeys
from localfleet.fleet import Fleet
from localfleet.process import wait_for

ADDRESS: Final = "203.0.113.7"
REAL, DRAINED, MARKER = "edge-real", "edge-drained", "edge-marker"
"""A node with a real agent, one that is draining, and one whose type `marker` is ready now and then."""
SIMULATED: Final = ("edge-1", "edge-2", DRAINED)
TYPES: Final = ("asr", "nmt", "tts", "semantic")
MEMBERS: Final = {REAL: "Ready", "edge-1": "Ready", "edge-2": "Ready", DRAINED: "Draining"}
SPEAKING: Final = {REAL: "Ready"}
"""Members of the pools by language: the simulated nodes report no languages."""
SECONDS: Final = 60.0
SERVER_SIDE: Final = ("apply", "--server-side", "--force-conflicts")

Json = dict[str, Any]


def downgrade_definitions(fleet: Fleet) -> None:
    """Replace the definitions of the cluster by those of the former release."""
    fleet.kubectl(*SERVER_SIDE, "-f", "-", text=yaml.safe_dump_all(former_definitions()))
    _wait_for_definitions(fleet, new=False)


def upgrade_definitions(fleet: Fleet) -> None:
    """Apply today's definitions, and wait until they are in use."""
    fleet.kubectl(*SERVER_SIDE, "-f", str(CRDS))
    _wait_for_definitions(fleet, new=True)


def revoke_new_rights(fleet: Fleet) -> None:
    """Leave the operator the rights that the former chart gave it."""
    name = f"hotpool-{fleet.namespace}-operator"
    fleet.kubectl("delete", f"role/{name}-pods", f"rolebinding/{name}-pods")
    role = json.loads(fleet.kubectl("get", "clusterrole", name, "-o", "json"))
    role["rules"] = [rule for rule in role["rules"] if rule.get("resources") != ["servicecidrs"]]
    fleet.kubectl("replace", "-f", "-", text=json.dumps(role))


def _wait_for_definitions(fleet: Fleet, *, new: bool) -> None:
    """Wait until the API server keeps (`new`) or drops the fields of endpoints."""
    spec = {"requires": {"types": [{"type": "asr"}]}, "service": {"ports": [{"type": "asr", "port": 80}]}}
    generator = {"rule": {"hash": {"count": 1}}, "template": {"spec": spec}}
    _wait_for_definition(fleet, "NodeCapability", {"addresses": [ADDRESS]}, "addresses", new=new)
    _wait_for_definition(fleet, "NodePool", spec, "ports", new=new)
    _wait_for_definition(fleet, "NodePoolGenerator", generator, "ports", new=new)


def _wait_for_definition(fleet: Fleet, kind: str, spec: Json, field: str, *, new: bool) -> None:
    body = {"apiVersion": "hotpool.dev/v1alpha1", "kind": kind, "metadata": {"name": "probe"}, "spec": spec}
    words = ("create", "--dry-run=server", "--validate=false", "-o", "json", "-f", "-")

    def in_use() -> bool:
        return (f'"{field}"' in fleet.kubectl(*words, text=json.dumps(body))) is new

    wait_for(f"the definition of {kind} is in use", in_use, SECONDS)


class StoredMembers:
    """Members of pools in Redis, read without a function, because the former library lacks today's functions."""

    def __init__(self, fleet: Fleet) -> None:
        self.client: Any = redis.Redis.from_url(fleet.redis_url, decode_responses=True)
        self.keys = FleetKeys(DEFAULT_PREFIX, fleet.namespace)

    def read(self, *pools: str) -> list[dict[str, str]]:
        """Return node → state of each pool, all of one moment."""
        with self.client.pipeline(transaction=True) as commands:
            for name in pools:
                for key in self.keys.pool(name)[1:]:
                    commands.zrange(key, 0, -1)
            sets = iter(commands.execute())
        return [{node: state.title() for state in STATES for node in next(sets)} for _ in pools]


class StoredMembersWatcher:
    """Reads the members of pools in Redis again and again, and keeps each membership that differs from the last."""

    def __init__(self, fleet: Fleet, pools: Iterable[str]) -> None:
        self._stored = StoredMembers(fleet)
        self.memberships: dict[str, list[dict[str, str]]] = {name: [] for name in pools}
        """Pool → its memberships (node → state) in order."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher of redis")

    def __enter__(self) -> Self:
        self._read()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._read()
        self._stored.client.close()

    def _run(self) -> None:
        while not self._ended.wait(0.005):
            self._read()

    def _read(self) -> None:
        for seen, now in zip(self.memberships.values(), self._stored.read(*self.memberships), strict=True):
            if now not in seen[-1:]:
                seen.append(now)


class FormerFleet:
    """The pools of a former fleet. The test starts the agent of `REAL`."""

    def __init__(self, fleet: Fleet, agents: SimulatedAgents) -> None:
        self.fleet = fleet
        self._agents = agents
        self._marked = False
        self._stored = StoredMembers(fleet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stored.client.close()

    def publish(self) -> None:
        """Create pools and simulated nodes, start the operator, and wait until all pools are published."""
        fleet, agents = self.fleet, self._agents
        fleet.apply(*_pools())
        agents.create(SIMULATED, TYPES)
        agents.create([MARKER], ["marker"])
        agents.report(MARKER, marker=False)
        fleet.kubectl("patch", "ncap", DRAINED, "--type=merge", "-p", '{"spec": {"drain": true}}')
        fleet.start_operator()
        fleet.wait_leading()
        wait_for("generated pools", lambda: len(self.pools()) > len(TYPES) + 1, SECONDS)
        for name in self.pools():
            self._wait_published(name, MEMBERS if name in TYPES else SPEAKING)
        self.wait_processed()

    def pools(self) -> set[str]:
        """Return the names of all pools but `marker`."""
        return {item["metadata"]["name"] for item in self.fleet.list("nodepools")} - {"marker"}

    def wait_processed(self) -> None:
        """Wait until the operator has published whatever the reports before this call change."""
        self._marked = not self._marked
        self._agents.report(MARKER, marker=self._marked)
        self._wait_published("marker", {MARKER: "Ready"} if self._marked else {})

    def reduce_redis(self) -> None:
        """Remove from Redis what the former operator did not write. No operator may run."""
        client, keys = self._stored.client, self._stored.keys
        pools, nodes = sorted(client.smembers(keys.pools)), sorted(client.smembers(keys.nodes))
        with client.pipeline() as commands:
            for name in nodes:
                commands.hget(keys.node(name), ".facts")
            stamps = [" ".join([*facts.split()[:-1], "former"]) for facts in commands.execute()]
            commands.execute_command("FUNCTION", "DELETE", LIBRARY)
            commands.hdel(keys.meta, "endpoints")
            commands.delete(keys.endpoints, *map(keys.services, pools))
            for name in pools:
                commands.hdel(keys.pool(name)[0], "services")
                commands.hset(keys.pool(name)[0], "digest", "former")
            for name, stamp in zip(nodes, stamps, strict=True):
                commands.hset(keys.node(name), ".facts", stamp)
            commands.execute()

    def wait_rewritten(self) -> None:
        """Wait until Redis is complete in today's form."""
        client, keys = self._stored.client, self._stored.keys

        def rewritten() -> bool:
            facts = [client.hmget(keys.pool(name)[0], "services", "digest") for name in client.smembers(keys.pools)]
            complete = client.hget(keys.meta, "complete") == "1"
            return complete and all(services and digest != "former" for services, digest in facts)

        wait_for("Redis is rewritten", rewritten, SECONDS)

    def _wait_published(self, name: str, expected: dict[str, str]) -> None:
        def published() -> bool:
            return self.fleet.members(name) == expected and self._stored.read(name) == [expected]

        wait_for(f"{name} is published", published, SECONDS)


def _pools() -> list[Json]:
    """Return pools by hand, and a generator of pools by language pair."""
    requires = {"types": [{"type": type_} for type_ in ("asr", "nmt", "tts")]}
    generator = {
        "apiVersion": "hotpool.dev/v1alpha1",
        "kind": "NodePoolGenerator",
        "metadata": {"name": "speech"},
        "spec": {"rule": {"languagePairs": {"manyToOne": True}}, "template": {"spec": {"requires": requires}}},
    }
    return [
        *(pool(type_, types=[{"type": type_}]) for type_ in TYPES),
        pool("zh-en", types=[{"type": "asr"}], languagePairs={"allOf": ["zh-en"], "semantic": True}),
        pool("marker", types=[{"type": "marker"}]),
        generator,
    ]
