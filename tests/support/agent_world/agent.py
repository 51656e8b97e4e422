"""The agent of the world as a process of its own, its requests, and what the API server holds of it."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from kubernetes import client

from hotpool_agent.control import protocol
from hotpool_agent.paths import socket_path
from localfleet.fleet import Fleet
from localfleet.process import ManagedProcess, wait_for

NODE: Final = "edge-1"
INTERVAL: Final = 2
SETTLE_SECONDS: Final = 90.0
Json = dict[str, Any]


class WorldAgent:
    """The agent of one node. `state`: its state folder, `catalogue`: its catalogue file."""

    def __init__(self, fleet: Fleet) -> None:
        self.state = fleet.folder / "agents" / NODE
        self.catalogue = fleet.folder / f"{NODE}.yaml"
        self._fleet = fleet
        self._process: ManagedProcess | None = None

    @property
    def pid(self) -> int:
        """Pid of the agent that was started last."""
        assert self._process
        return self._process.pid

    def start(self, services: Sequence[Json], on_exit: str, inside: Sequence[str]) -> None:
        """Start the agent with this catalogue, and wait until it responds. `inside`: a program that executes it."""
        times: Json = {"interval": INTERVAL, "debounce": 0.3}
        self._process = self._fleet.start_agent(NODE, services, inside=inside, onAgentExit=on_exit, **times)
        wait_for("the agent responds", self._responds, SETTLE_SECONDS)

    def stop(self) -> None:
        """End it by SIGTERM, which must succeed."""
        assert self._process
        assert self._process.stop() == 0, self._process.tail()

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process and self._process.running:
            self._process.kill()

    def output(self) -> str:
        """Return the end of its output."""
        return self._process.tail(40) if self._process else ""

    def reload(self, services: Sequence[Json], on_exit: str) -> None:
        """Replace the catalogue, and let the agent read it."""
        self._fleet.write_catalogue(NODE, services, onAgentExit=on_exit)
        self.request("reload")

    def request(self, op: Any, name: str | None = None, *, disk_broken: bool = False) -> Any:
        """Send a request and return its result. `disk_broken`: it may be done and not written to disk."""
        try:
            return protocol.send(socket_path(self.state), protocol.Request(op=op, id=name, wait=False))
        except protocol.RequestError as error:
            if not disk_broken or "cannot be written to disk" not in str(error):
                raise

    def wait_state_written(self) -> None:
        """Wait until the agent has written its state file."""
        wait_for("the state is written", lambda: "state" not in self.request("status")["problems"], SETTLE_SECONDS)

    def command_from_cluster(self, name: str, *, wanted: bool, request: str) -> None:
        """Write a command into the node's object, and wait until the agent has applied it."""
        entry = {"id": name, "desired": "Running" if wanted else "Stopped", "requestID": request}
        kind = ("hotpool.dev", "v1alpha1", self._fleet.namespace, "nodecapabilities", NODE)
        self._fleet.objects.patch_namespaced_custom_object(*kind, {"spec": {"services": [entry]}})

        def is_applied() -> bool:
            (found,) = self.request("status", name)["services"]
            return bool(found["requestID"] == request)

        wait_for("the command is applied", is_applied, SETTLE_SECONDS)

    def report(self) -> Json:
        """Return the stored report, or an empty one."""
        capability = self._fleet.get("nodecapabilities", NODE) or {}
        return dict((capability.get("status") or {}).get("report") or {"services": [], "capabilities": []})

    def heartbeat_seconds(self) -> float:
        """Return the age of the last heartbeat; infinite before the first."""
        try:
            lease: Any = self._fleet.leases.read_namespaced_lease(f"hotpool-node-{NODE}", self._fleet.namespace)
        except client.exceptions.ApiException as error:
            if error.status == 404:
                return float("inf")
            raise
        renewed = lease.spec.renew_time
        return float((datetime.now(UTC) - renewed).total_seconds()) if renewed else float("inf")

    def _responds(self) -> bool:
        with suppress(protocol.AgentUnreachableError):
            return bool(self.request("status"))
        return False
