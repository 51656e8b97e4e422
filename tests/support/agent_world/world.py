"""One real agent with real services on the real API server, and a model of their states.

A step changes the agent, its services, its catalogue, its machine, its network, a pod or a port. `settle` waits until
three sources agree: the model (the desired states), the operating system (the processes that run and answer, read
without the agent) and the stored report; and until the heartbeat is recent and the agent's process has not grown.
"""

import json
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from tests.support.agent_world import machine
from tests.support.agent_world.agent import INTERVAL, NODE, SETTLE_SECONDS, WorldAgent
from tests.support.agent_world.comparison import ClusterView, differences
from tests.support.agent_world.entries import ODD_SCALARS, CatalogueEntry
from tests.support.agent_world.machine import ServiceProcesses
from tests.support.agent_world.pods import WorldPods
from tests.support.agent_world.surroundings import Surroundings

from hotpool_agent.control import protocol
from hotpool_agent.paths import log_file
from localfleet.fleet import Fleet
from localfleet.ports import free_port
from localfleet.process import wait_for
from localfleet.relay import Relay

QUICK: Final = {
    "HOTPOOL_AGENT_STOP_SECONDS": "1",
    "HOTPOOL_AGENT_ANNOUNCE_SECONDS": "0.5",
    "HOTPOOL_AGENT_RESTART_SECONDS": "0.05",
    "HOTPOOL_AGENT_RESTART_LIMIT_SECONDS": "0.5",
    "HOTPOOL_AGENT_FLAP_HALF_LIFE_SECONDS": "0.1",
    "HOTPOOL_AGENT_BACKOFF_SECONDS": "0.1",
}
"""Environment of the agent: short times. Its pods are those of the fleet's namespace."""
IDS: Final = ("a", "b", "c", "d", "e")
LANGUAGES: Final = ("zh", "en", "ja", "de")


class AgentWorld:
    """The agent, its environment and the model. `steps` lists the steps so far, for the message of a failure."""

    def __init__(self, fleet: Fleet, relay: Relay, seed: int) -> None:
        self.steps: list[str] = []
        self._fleet = fleet
        self._relay = relay
        self._random = random.Random(seed)  # noqa: S311 - fixed steps, no secret
        self._machine = Surroundings(fleet.folder, self._random)
        self._pods = WorldPods(fleet, NODE, self._random)
        self._entries: dict[str, CatalogueEntry] = {}
        self._removed_hanging: set[str] = set()
        """Services that were removed while a start of theirs might hang."""
        self._exit = "keep"
        self._draining = False
        self._requests = 0
        self._cluster_command: tuple[str, bool] | None = None
        """Service of the command in the object's spec, and whether the service runs when it is added: that command or
        the later local one."""
        self._foreign_sockets: dict[int, socket.socket] = {}
        self._agent = WorldAgent(fleet)

    def begin(self) -> None:
        """Start with three services."""
        self._pods.install()
        for identifier in IDS[:3]:
            self._entries[identifier] = self._new_entry()
        self._start_agent()
        self.settle()

    def step(self) -> None:
        """Do one random step."""
        moves: list[tuple[int, Callable[[], str | None]]] = [
            (6, self._command),
            (3, self._command_from_cluster),
            (4, self._crash),
            (2, self._hang),
            (2, self._fail_probe),
            (2, self._take_port),
            (3, self._free_port),
            (4, self._edit),
            (2, self._kill_agent),
            (2, self._restart_agent),
            (3, self._disturb_network),
            (2, self._drain),
            (3, self._change_pod),
            (2, self._break_or_repair_disk),
            (2, self._spoil_log),
            (1, self._spoil_catalogue),
            (2, self._hang_start),
        ]
        (move,) = self._random.choices([move for _, move in moves], [weight for weight, _ in moves])
        if done := move():
            self.steps.append(done)

    def settle(self) -> None:
        """Wait until model, operating system and report agree; raise AssertionError with the differences."""
        self._relay.restore()
        self._relay.resume()
        try:
            wait_for("model, processes and report agree", lambda: not self._differences(), SETTLE_SECONDS)
        except AssertionError as error:
            history = "\n".join(self.steps[-25:])
            raise AssertionError(
                f"{self._differences()}\nlast steps:\n{history}\nreport: {self._agent.report()}\n"
                f"agent:\n{self._agent.output()}"
            ) from error

    def end(self) -> None:
        """Shut the agent down, and check that no process is left."""
        self._repair_disk()
        self._entries = {identifier: entry for identifier, entry in self._entries.items() if entry.wanted}
        self._exit = "stop"
        self._reload()
        self._agent.stop()
        left = self._processes()
        assert left == {}, f"left behind: {left}"

    def close(self) -> None:
        """Kill what is left, and give the machine back."""
        self._agent.kill()
        for found in self._processes().values():
            for pid in (*found.leaders, *found.workers):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for stranger in self._foreign_sockets.values():
            stranger.close()
        self._machine.close()

    @property
    def missing(self) -> list[str]:
        """Reasons why some steps are impossible on this machine."""
        return self._machine.missing

    def _new_entry(self) -> CatalogueEntry:
        chance = self._random
        return CatalogueEntry(
            port=free_port(),
            wanted=True,
            delay=chance.choice([0, 0, 0.3]),
            heavy=chance.random() < 0.3,
            languages=chance.sample(LANGUAGES, 2),
            workers=tuple(chance.choice([[], [], ["session"], ["session", "daemon"], self._bare_workers()])),
        )

    def _bare_workers(self) -> list[str]:
        """Return workers that shed their environment: only a cgroup shows to whom they belong."""
        return ["bare-daemon", "daemon"] if self._machine.cgroup else ["daemon"]

    def _random_name(self, *, wanted: bool | None = None) -> str | None:
        names = [name for name, entry in self._entries.items() if wanted is None or entry.wanted == wanted]
        return self._random.choice(names) if names else None

    def _command(self) -> str | None:
        name, verb = self._random_name(), self._random.choice(["start", "stop", "restart"])
        if name is None:
            return None
        self._request(verb, name)
        self._entries[name].wanted = verb != "stop"
        return f"{verb} {name}"

    def _command_from_cluster(self) -> str | None:
        """Send a command by the cluster, on a working network: else its order among local commands is undefined."""
        name, wanted = self._random_name(), self._random.random() < 0.5
        if name is None:
            return None
        self._relay.restore()
        self._relay.resume()
        self._requests += 1
        self._agent.command_from_cluster(name, wanted=wanted, request=f"r{self._requests}")
        self._entries[name].wanted = wanted
        self._cluster_command = (name, wanted)
        return f"cluster: {name} {'Running' if wanted else 'Stopped'}"

    def _crash(self) -> str | None:
        return self._signal(signal.SIGKILL)

    def _hang(self) -> str | None:
        return self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> str | None:
        name = self._random_name(wanted=True)
        found = self._processes().get(name or "")
        if not found or not found.leaders:
            return None
        with suppress(ProcessLookupError):
            os.kill(found.leaders[0], number)
        return f"{number.name} {name}"

    def _fail_probe(self) -> str | None:
        name = self._random_name(wanted=True)
        if name is None or machine.get(self._entries[name].port, "/health?status=503", "POST") is None:
            return None
        return f"unhealthy {name}"

    def _take_port(self) -> str | None:
        name = self._random_name(wanted=False)
        if name is None or self._entries[name].port in self._foreign_sockets:
            return None
        try:
            self._foreign_sockets[self._entries[name].port] = socket.create_server(
                ("127.0.0.1", self._entries[name].port)
            )
        except OSError:
            return None
        return f"port of {name} taken"

    def _free_port(self) -> str | None:
        if not self._foreign_sockets:
            return None
        port = self._random.choice(list(self._foreign_sockets))
        self._foreign_sockets.pop(port).close()
        return f"port {port} free"

    def _edit(self) -> str:
        name, chance = self._random.choice(IDS), self._random
        if name not in self._entries:
            self._entries[name], change = self._new_entry(), "add"
            if self._cluster_command and self._cluster_command[0] == name:
                self._entries[name].wanted = self._cluster_command[1]
        elif chance.random() < 0.3:
            removed = self._entries.pop(name)
            if removed.left_hanging or removed.hangs == "program":
                self._removed_hanging.add(name)
            if self._cluster_command and self._cluster_command[0] == name:
                self._cluster_command = name, removed.wanted
            change = "remove"
        elif chance.random() < 0.5:
            self._entries[name].variant += 1
            change = "change the command of"
        else:
            self._entries[name].languages = chance.sample(LANGUAGES, 2)
            change = "change the languages of"
        self._exit = chance.choice(["keep", "stop"])
        self._reload()
        return f"catalogue: {change} {name}, onAgentExit {self._exit}"

    def _hang_start(self) -> str | None:
        """Let the start of a service hang, or let it start again."""
        name = self._random_name()
        if name is None:
            return None
        entry = self._entries[name]
        if entry.hangs:
            entry.hangs, entry.left_hanging = "", False
        elif frozen := self._machine.freeze():
            entry.hangs, entry.frozen = self._random.choice(["program", "workingDir"]), frozen
        self._reload()
        return f"catalogue: start of {name} hangs: {entry.hangs or 'no more'}"

    def _drain(self) -> str:
        self._draining = not self._draining
        self._request("drain" if self._draining else "undrain")
        return "drain" if self._draining else "undrain"

    def _change_pod(self) -> str:
        return self._pods.change()

    def _break_or_repair_disk(self) -> str:
        if self._machine.is_disk_broken:
            self._repair_disk()
            return "disk repaired"
        return f"disk: {self._machine.break_disk(self._agent.pid, self._agent.state)}"

    def _repair_disk(self) -> None:
        """Repair the disk, and wait until the agent has written its state: a crash would undo the commands since."""
        self._machine.repair_disk()
        self._agent.wait_state_written()

    def _spoil_log(self) -> str | None:
        name = self._random_name()
        if name is None or self._machine.is_disk_broken:
            return None
        return f"log of {name}: {self._machine.spoil_log(log_file(self._agent.state, name))}"

    def _spoil_catalogue(self) -> str:
        """Reload a catalogue that is missing, a folder or a loop, or has an odd value; then the right one."""
        path = self._agent.catalogue
        kinds: dict[str, Callable[[], object]] = {
            "missing": lambda: None,
            "a folder": path.mkdir,
            "a loop": lambda: path.symlink_to(path),
            "odd": lambda: path.write_text(self._odd_catalogue(), encoding="utf-8"),
        }
        kind = self._random.choice([*kinds, "odd", "odd"])
        path.unlink()
        kinds[kind]()
        with suppress(protocol.RequestError):
            self._agent.request("reload")
        if kind == "a folder":
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        self._reload()
        return f"catalogue: {kind}, and right again"

    def _odd_catalogue(self) -> str:
        services = self._catalogue()
        for entry in services:
            entry["attributes"]["tier"] = ["@"]
        return json.dumps({"version": 1, "onAgentExit": self._exit, "services": services}).replace(
            '"@"', self._random.choice(ODD_SCALARS)
        )

    def _kill_agent(self) -> str:
        self._repair_disk()
        self._agent.kill()
        for entry in self._entries.values():
            entry.left_hanging |= entry.hangs == "program"
        self._start_agent()
        return "agent: SIGKILL, started again"

    def _restart_agent(self) -> str:
        self._repair_disk()
        self._agent.stop()
        self._start_agent()
        return f"agent: SIGTERM ({self._exit}), started again"

    def _disturb_network(self) -> str:
        change = self._random.choice(["cut", "restore", "hold", "resume"])
        getattr(self._relay, change)()
        return f"network: {change}"

    def _start_agent(self) -> None:
        self._agent.start(self._catalogue(), self._exit, self._machine.agent_inside())

    def _catalogue(self) -> list[dict[str, Any]]:
        return [entry.to_catalogue(name, self._machine.workers) for name, entry in sorted(self._entries.items())]

    def _reload(self) -> None:
        self._agent.reload(self._catalogue(), self._exit)

    def _request(self, op: Any, name: str | None = None) -> None:
        self._agent.request(op, name, disk_broken=self._machine.is_disk_broken)

    def _processes(self) -> dict[str, ServiceProcesses]:
        return machine.processes(self._fleet.folder / "agents", self._machine.workers)

    def _differences(self) -> list[str]:
        """Return the differences between model, machine and API server; empty when they agree."""
        cluster = ClusterView(self._agent.report(), self._pods.expected(), self._agent.heartbeat_seconds())
        blocked = {name for name, entry in self._entries.items() if entry.port in self._foreign_sockets}
        found = differences(self._entries, cluster, self._processes(), blocked)
        if cluster.report.get("session") != self._agent.request("status")["session"]:
            found.append("the report is of another session")
        if cluster.report.get("draining") != self._draining:
            found.append(f"reported draining {cluster.report.get('draining')}, model {self._draining}")
        if cluster.heartbeat_seconds > 2 * INTERVAL:
            found.append(f"the last heartbeat is {cluster.heartbeat_seconds:.0f} s old")
        if cgroup := self._machine.cgroup:
            found += self._left_cgroups(machine.cgroups(self._agent.pid, cgroup.mount, cgroup.name))
        return [*found, *machine.growth(self._agent.pid)]

    def _left_cgroups(self, cgroups: Mapping[str, bool]) -> Iterator[str]:
        """Name cgroups without a service. The start of one that must not run may still hang there."""
        for name, populated in cgroups.items():
            entry = self._entries.get(name)
            hanging = entry.left_hanging if entry else name in self._removed_hanging
            if not (entry and entry.wanted) and not (populated and hanging):
                yield f"the cgroup of {name} is left"
