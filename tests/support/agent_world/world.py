"""One real agent with real services on the real API server, and a model of their states.

A step changes the agent, its services, its catalogue, its network or a port. `settle` waits until three sources agree:
the model (the desired states), the operating system (the processes that run and answer, read without the agent) and
the stored report.
"""

import os
import random
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from hotpool_agent.control import protocol
from hotpool_agent.paths import socket_path
from localfleet.catalogue import SERVICE, service
from localfleet.fleet import Fleet
from localfleet.ports import free_port
from localfleet.process import ManagedProcess, wait_for
from localfleet.relay import Relay

NODE: Final = "edge-1"
QUICK: Final = {
    "HOTPOOL_AGENT_STOP_SECONDS": "1",
    "HOTPOOL_AGENT_ANNOUNCE_SECONDS": "0.5",
    "HOTPOOL_AGENT_RESTART_SECONDS": "0.05",
    "HOTPOOL_AGENT_RESTART_LIMIT_SECONDS": "0.5",
    "HOTPOOL_AGENT_FLAP_HALF_LIFE_SECONDS": "0.1",
    "HOTPOOL_AGENT_BACKOFF_SECONDS": "0.1",
}
"""Environment of the agent: short times."""
IDS: Final = ("a", "b", "c", "d", "e")
LANGUAGES: Final = ("zh", "en", "ja", "de")
SETTLE_SECONDS: Final = 90.0
_PROBE_SECONDS: Final = 1.0


@dataclass
class CatalogueEntry:
    """A service of the catalogue, and its desired state."""

    port: int
    wanted: bool
    delay: float = 0.0
    heavy: bool = False
    variant: int = 0
    languages: list[str] = field(default_factory=list)

    def to_catalogue(self, identifier: str) -> dict[str, Any]:
        """Return the entry as in the catalogue file. Each service has a type of its own."""
        entry = service(identifier, f"type-{identifier}", autoStart=True, heavy=self.heavy, port=self.port)
        words = [*entry["run"]["command"][:2], "--port", str(self.port), "--start-delay", str(self.delay)]
        entry["run"] = {"command": [*words, "--type", f"v{self.variant}"]}
        entry["ready"]["startSeconds"] = 8
        entry["live"] = {"periodSeconds": 0.2, "timeoutSeconds": _PROBE_SECONDS, "failures": 3}
        entry["attributes"] = {"languages": self.languages}
        return entry


class AgentWorld:
    """The agent, its environment and the model. `steps` lists the steps so far, for the message of a failure."""

    def __init__(self, fleet: Fleet, relay: Relay, seed: int) -> None:
        self.steps: list[str] = []
        self._fleet = fleet
        self._relay = relay
        self._random = random.Random(seed)  # noqa: S311 - fixed steps, no secret
        self._entries: dict[str, CatalogueEntry] = {}
        self._exit = "keep"
        self._requests = 0
        self._cluster_command: tuple[str, bool] | None = None
        """Service of the command in the object's spec, and whether the service runs when it is added: that command or
        the later local one."""
        self._foreign_sockets: dict[int, socket.socket] = {}
        self._agent: ManagedProcess | None = None

    def begin(self) -> None:
        """Start with three services."""
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
            agent = self._agent.tail(40) if self._agent else ""
            history = "\n".join(self.steps[-25:])
            raise AssertionError(
                f"{self._differences()}\nlast steps:\n{history}\nreport: {self._report()}\nagent:\n{agent}"
            ) from error

    def end(self) -> None:
        """Shut the agent down, and check that no process is left."""
        self._entries = {identifier: entry for identifier, entry in self._entries.items() if entry.wanted}
        self._exit = "stop"
        self._write_catalogue()
        self._request("reload")
        assert self._agent
        assert self._agent.stop() == 0
        left = self._processes()
        assert left == {}, f"left behind: {left}"
        for stranger in self._foreign_sockets.values():
            stranger.close()

    def _new_entry(self) -> CatalogueEntry:
        chance = self._random
        return CatalogueEntry(
            port=free_port(),
            wanted=True,
            delay=chance.choice([0, 0, 0.3]),
            heavy=chance.random() < 0.3,
            languages=chance.sample(LANGUAGES, 2),
        )

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
        request = f"r{self._requests}"
        desired = "Running" if wanted else "Stopped"
        entry = {"id": name, "desired": desired, "requestID": request}
        patch = {"spec": {"services": [entry]}}
        self._fleet.objects.patch_namespaced_custom_object(
            "hotpool.dev", "v1alpha1", self._fleet.namespace, "nodecapabilities", NODE, patch
        )
        wait_for("the command is applied", lambda: self._status(name)["requestID"] == request, SETTLE_SECONDS)
        self._entries[name].wanted = wanted
        self._cluster_command = (name, wanted)
        return f"cluster: {desired} {name}"

    def _crash(self) -> str | None:
        return self._signal(signal.SIGKILL)

    def _hang(self) -> str | None:
        return self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> str | None:
        name = self._random_name(wanted=True)
        leaders = self._processes().get(name or "", [])
        if not leaders:
            return None
        with suppress(ProcessLookupError):
            os.kill(leaders[0], number)
        return f"{number.name} {name}"

    def _fail_probe(self) -> str | None:
        name = self._random_name(wanted=True)
        if name is None or self._get(self._entries[name].port, "/health?status=503", "POST") is None:
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
        self._write_catalogue()
        self._request("reload")
        return f"catalogue: {change} {name}, onAgentExit {self._exit}"

    def _kill_agent(self) -> str:
        assert self._agent
        self._agent.kill()
        self._start_agent()
        return "agent: SIGKILL, started again"

    def _restart_agent(self) -> str:
        assert self._agent
        assert self._agent.stop() == 0, self._agent.tail()
        self._start_agent()
        return f"agent: SIGTERM ({self._exit}), started again"

    def _disturb_network(self) -> str:
        change = self._random.choice(["cut", "restore", "hold", "resume"])
        getattr(self._relay, change)()
        return f"network: {change}"

    def _start_agent(self) -> None:
        self._agent = self._fleet.start_agent(NODE, self._catalogue(), interval=2, debounce=0.3, onAgentExit=self._exit)
        wait_for("the agent answers", lambda: self._request_if_up("status"), SETTLE_SECONDS)

    def _catalogue(self) -> list[dict[str, Any]]:
        return [entry.to_catalogue(name) for name, entry in sorted(self._entries.items())]

    def _write_catalogue(self) -> None:
        self._fleet.write_catalogue(NODE, self._catalogue(), onAgentExit=self._exit)

    def _request(self, op: Any, name: str | None = None) -> Any:
        return protocol.send(self._socket, protocol.Request(op=op, id=name, wait=False))

    def _request_if_up(self, op: Any) -> Any:
        with suppress(protocol.AgentUnreachableError):
            return self._request(op)

    @property
    def _socket(self) -> Any:
        return socket_path(self._fleet.folder / "agents" / NODE)

    def _status(self, name: str) -> dict[str, Any]:
        (found,) = self._request("status", name)["services"]
        return dict(found)

    def _report(self) -> dict[str, Any]:
        capability = self._fleet.get("nodecapabilities", NODE) or {}
        return dict((capability.get("status") or {}).get("report") or {"services": [], "capabilities": []})

    def _differences(self) -> list[str]:
        """Return the differences between model, processes and report; empty when they agree."""
        report, processes = self._report(), self._processes()
        reported = {item["id"]: item for item in report["services"]}
        ready = {name for item in report["capabilities"] if item["ready"] for name in item["services"]}
        found = [
            f"{name}: not in the catalogue, but {processes[name]} live" for name in processes.keys() - self._entries
        ]
        if reported.keys() != self._entries.keys():
            found.append(f"reported {sorted(reported)}, catalogue {sorted(self._entries)}")
            return found
        if report.get("session") != self._request("status")["session"]:
            found.append("the report is of another session")
        for name, entry in self._entries.items():
            found += self._difference(name, entry, reported[name], processes.get(name, []))
            runs = reported[name]["state"] == "Running"
            found += [f"{name}: state {reported[name]['state']}, ready {name in ready}"] * (runs != (name in ready))
        return found

    def _difference(
        self, name: str, entry: CatalogueEntry, reported: dict[str, Any], leaders: list[int]
    ) -> Iterator[str]:
        state, blocked = reported["state"], entry.port in self._foreign_sockets
        expected = {"Failed", "Starting"} if blocked else {"Running"}
        if not entry.wanted:
            # A stop does not succeed while another process has the port (requirement A9).
            expected = {"Stopped", "Failed"} if blocked else {"Stopped"}
        if state not in expected:
            yield f"{name}: reported {state}, expected {expected}"
        if (reported["desired"] == "Running") != entry.wanted:
            yield f"{name}: reported desired {reported['desired']}, model {entry.wanted}"
        if reported["languages"] != entry.languages:
            yield f"{name}: languages {reported['languages']}, catalogue {entry.languages}"
        if "Running" not in expected:
            if leaders:
                yield f"{name}: {leaders} live"
        elif leaders != [reported.get("pid")]:
            yield f"{name}: reported pid {reported.get('pid')}, alive {leaders}"
        elif (
            self._get(entry.port, "/", "GET") != f"v{entry.variant}" or self._get(entry.port, "/health", "GET") is None
        ):
            yield f"{name}: wrong response on port {entry.port}"

    def _processes(self) -> dict[str, list[int]]:
        """Return service id → living processes of this fleet, by the mark in their environment."""
        found: dict[str, list[int]] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                if str(SERVICE) in words and process.status() != psutil.STATUS_ZOMBIE and self._is_ours(process):
                    found.setdefault(self._name_of(process), []).append(process.pid)
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        return process.environ().get("HOTPOOL_AGENT_STATE_DIR") == str(self._fleet.folder / "agents")

    @staticmethod
    def _name_of(process: psutil.Process) -> str:
        return process.environ()["HOTPOOL_AGENT_SERVICE"].split(":")[-2]

    @staticmethod
    def _get(port: int, path: str, method: str) -> str | None:
        """Return the body of a success response, else None."""
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=_PROBE_SECONDS) as response:  # noqa: S310
                return str(response.read().decode())
        except OSError:
            return None
