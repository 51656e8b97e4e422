"""`make demo`: six nodes with real services; a service stops, its node leaves the pools, and comes back.

Brings up a cluster, a Redis, the operator and six agents, plays a scripted hot-plug in both directions, then stays up
for people to try. `--once` ends after the script: 0 when every expectation held, else 1. Everything is removed at
the end.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from localfleet.catalogue import service, translator
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY, kind_program, kubectl_program
from localfleet.process import TooLate, wait_for
from localfleet.redis_server import RedisServer

CLUSTER: Final = "hotpool-demo"
NAMESPACE: Final = "speech"
LANGUAGES: Final = {
    "edge-1": ["zh", "en"],
    "edge-2": ["zh", "en", "ja"],
    "edge-3": ["en", "de"],
    "edge-4": ["zh", "en"],
    "edge-5": ["ja", "en"],
    "edge-6": ["de", "en", "zh"],
}
OWN_TYPE_NODES: Final = {"edge-1", "edge-5"}
SCRIPT: Final = (
    ("edge-1", "stop", "piper", "zh-en"),
    ("edge-1", "start", "piper", "zh-en"),
    ("edge-4", "stop", "repair", "zh-en-repaired"),
    ("edge-4", "start", "repair", "zh-en-repaired"),
    ("edge-5", "stop", "qwen", "llm"),
    ("edge-5", "start", "qwen", "llm"),
)
"""Node, command, service id, and the pool that the node leaves or comes back to."""
EXPECTED: Final = {
    "zh-en": {"edge-1", "edge-2", "edge-4", "edge-6"},
    "zh-en-repaired": {"edge-1", "edge-2", "edge-4", "edge-6"},
    "asr-gold": set(LANGUAGES),
    "llm": OWN_TYPE_NODES,
}
READY_SECONDS: Final = 120.0
STEP_SECONDS: Final = 20.0

screen = Console(highlight=False)


def step(text: str) -> Callable[[], None]:
    """Say that something begins; the returned call says how long it took."""
    started = time.monotonic()
    screen.print(f"  {text} ...")
    return lambda: screen.print(f"  {text}: {time.monotonic() - started:.1f} s")


class Demo:
    """One run."""

    def __init__(self, folder: Path) -> None:
        self._kind = kind_program()
        self._kubectl = kubectl_program(self._kind)
        self._kubeconfig = folder / "kubeconfig"
        self._redis = RedisServer()
        self._fleet: Fleet | None = None

    @property
    def fleet(self) -> Fleet:
        """The fleet, once it is up."""
        if self._fleet is None:
            raise RuntimeError("the fleet is not up")
        return self._fleet

    def up(self) -> None:
        """Cluster, Redis, operator, agents, pools; returns when all pools are as expected."""
        done = step("cluster")
        self._delete_cluster()
        create = [str(self._kind), "create", "cluster", "--name", CLUSTER, "--kubeconfig", str(self._kubeconfig)]
        subprocess.run(create, check=True, capture_output=True)
        done()
        self._redis.start()
        self._fleet = Fleet(self._kubeconfig, self._kubectl, NAMESPACE, self._redis.url)
        done = step("definitions, accounts, pools")
        self.fleet.install()
        for sample in ("pools", "generator"):
            self.fleet.kubectl("apply", "-f", str(REPOSITORY / "crds" / "samples" / f"{sample}.yaml"))
        done()
        done = step("operator and six agents with their services")
        self.fleet.start_operator()
        for node, languages in LANGUAGES.items():
            own = [service("qwen", "llm")] if node in OWN_TYPE_NODES else []
            self.fleet.start_agent(node, [*translator(languages), *own])
        self.fleet.wait_leading(READY_SECONDS)
        for pool, nodes in EXPECTED.items():
            wait_for(f"pool {pool} has {sorted(nodes)}", lambda p=pool, n=nodes: self._whole(p, n), READY_SECONDS)  # type: ignore[misc]
        done()

    def play(self) -> None:
        """The scripted hot-plug; raises TooLate where an expectation does not hold in time."""
        self.show()
        for node, command, id_, pool in SCRIPT:
            stages = self._plug(node, command, id_, pool)
            moved = "left" if command == "stop" else "is back in"
            times = " · ".join(f"{stage} {spent:.0f} ms" for stage, spent in stages.items())
            screen.print(f"[bold]{command} {id_} on {node}[/bold]: {node} {moved} {pool}")
            screen.print(f"    {times} after the agent saw it")
        self.show()

    def show(self) -> None:
        """The pools, as kubectl and Redis say."""
        table = Table("pool", "ready", "members in slices", "members in Redis")
        for item in self.fleet.list("nodepools"):
            name = item["metadata"]["name"]
            both = (self.fleet.members(name), self.fleet.members_in_redis(name))
            shown = [" ".join(sorted(found)).replace("edge-", "") for found in both]
            table.add_row(name, item["status"].get("ready", ""), *shown)
        screen.print(table)

    def hints(self) -> None:
        """What to try."""
        state = f"HOTPOOL_AGENT_STATE_DIR={self.fleet.agent_environment['HOTPOOL_AGENT_STATE_DIR']}"
        lines = (
            f"export KUBECONFIG={self._kubeconfig}",
            f"{self._kubectl} get nodepools -n {NAMESPACE}",
            f"{state} .venv/bin/hotpool-agent stop piper --node edge-1",
            f".venv/bin/hotpool pick zh-en -n {NAMESPACE} --redis {self._redis.url}",
        )
        screen.print("\nTry, in another terminal (Ctrl-C here removes everything):")
        for line in lines:
            screen.print(f"  {line}", soft_wrap=True)

    def explain(self) -> None:
        """The ends of the logs, for when something went wrong."""
        if self._fleet is None:
            return
        for process in [self._fleet.operator, *self._fleet.agents.values()]:
            if process:
                screen.print(f"--- {process.name}\n{process.tail(5)}", markup=False)

    def down(self) -> None:
        """Remove everything."""
        done = step("removing everything")
        if self._fleet:
            self._fleet.close()
        self._redis.close()
        self._delete_cluster()
        done()

    def _delete_cluster(self) -> None:
        delete = [str(self._kind), "delete", "cluster", "--name", CLUSTER, "--kubeconfig", str(self._kubeconfig)]
        subprocess.run(delete, check=True, capture_output=True)

    def _plug(self, node: str, command: str, id_: str, pool: str) -> dict[str, float]:
        """Stop or start a service; stage → milliseconds from the agent's stamp, by the one clock of this machine."""
        inside = command == "start"
        stamps: list[str] = []

        def reported() -> bool:
            report = self._report(node)
            stamps.append(report["time"])
            return any(id_ in capability["services"] for capability in report["capabilities"]) is inside

        probes: dict[str, Callable[[], bool]] = {
            "capability": reported,
            "Redis": lambda: (node in self.fleet.members_in_redis(pool)) is inside,
            "slice": lambda: (node in self.fleet.members(pool)) is inside,
        }
        with ThreadPoolExecutor(len(probes)) as threads:
            told = subprocess.Popen(
                [str(Path(sys.executable).parent / "hotpool-agent"), command, id_, "--node", node],
                env={**os.environ, **self.fleet.agent_environment},
                stdout=subprocess.DEVNULL,
            )
            what = f"{node} in {pool}: {inside}"
            seen = {name: threads.submit(self._when, what, probe) for name, probe in probes.items()}
            moments = {name: future.result() for name, future in seen.items()}
        told.wait(STEP_SECONDS)
        changed = datetime.fromisoformat(stamps[-1]).timestamp()
        return {name: (moment - changed) * 1000 for name, moment in moments.items()}

    @staticmethod
    def _when(what: str, probe: Callable[[], bool]) -> float:
        wait_for(what, probe, STEP_SECONDS)
        return time.time()

    def _report(self, node: str) -> dict[str, Any]:
        found: Any = self.fleet.get("nodecapabilities", node)
        return dict(found["status"]["report"])

    def _whole(self, pool: str, nodes: set[str]) -> bool:
        return set(self.fleet.members(pool)) == nodes == set(self.fleet.members_in_redis(pool))


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the script: 0 when it went as expected, else 1")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="hotpool-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            demo.up()
            demo.play()
            if not options.once:
                demo.hints()
                signal.pause()
        except KeyboardInterrupt:
            return 0
        except (TooLate, RuntimeError, subprocess.CalledProcessError) as error:
            demo.explain()
            screen.print(f"the demo failed: {error}", style="red", markup=False)
            return 1
        finally:
            demo.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
