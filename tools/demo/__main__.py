"""`make demo`: six nodes with real services. A service stops, its node leaves the pools, and comes back.

Starts a cluster, a Redis, the operator and six agents, and runs a scripted hot-plug in both directions, in which a
request of one session reaches a node by pick, then another, then the first again. Then it stays up for manual commands.
`--once` exits after the script: 0 if every expectation was met, else 1. Everything is removed at the end, and after
Ctrl-C, SIGTERM or SIGHUP at any moment.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, permutations
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

from demo.change_watcher import Observer
from demo.preflight import describe, only_demo, require_programs, require_redis
from demo.screen import render_screen
from demo.shell import COMMANDS, write_environment
from demo.waiting import Pools, wait_for_pools
from hotpool.core.generators.admission import pool_name
from hotpool.lookup import Picked, SyncLookup
from localfleet.catalogue import service, translator
from localfleet.clusters import cluster
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY
from localfleet.process import ManagedProcess, TooLate, wait_for
from localfleet.redis_server import redis_url
from localfleet.signals import SIGNALS, ignore_signals, unwind_on_signals
from localkube.paths import clusters_folder

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
"""Node, command, service id, and the pool that the node leaves or joins again."""
PAIRS: Final = {pair for spoken in LANGUAGES.values() for pair in permutations(spoken, 2)}
EXPECTED: Final = {
    "zh-en": {"edge-1", "edge-2", "edge-4", "edge-6"},
    "zh-en-repaired": {"edge-1", "edge-2", "edge-4", "edge-6"},
    "asr-gold": set(LANGUAGES),
    "llm": OWN_TYPE_NODES,
    **{
        pool_name("speech", f"{a}-{b}"): {n for n, spoken in LANGUAGES.items() if {a, b} <= {*spoken}} for a, b in PAIRS
    },
    **{pool_name("speech", f"*-{b}"): {n for n in LANGUAGES if b in LANGUAGES[n]} for _, b in PAIRS},
}
"""Pool → its members while every service runs: pools made by hand, by language pair and by target."""
REACHED: Final = ("edge-1", "zh-en", "tts")
"""Node, pool and type of the service that a session reaches, while it is there."""
READY_SECONDS: Final = 120.0
STEP_SECONDS: Final = 20.0
BETWEEN_SECONDS: Final = 2.0
"""Pause between two steps: a pool's slices are written at most once per second, and people need time to read."""

FAILURES: Final = (TooLate, RuntimeError, OSError, subprocess.SubprocessError)

screen = Console(highlight=False)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print the text while the block runs, then its duration."""
    started = time.monotonic()
    with screen.status(f"{text} ..."):
        if not screen.is_terminal:
            screen.print(f"  {text} ...")
        yield
    screen.print(f"  {text}: {time.monotonic() - started:.1f} s")


def fail(error: BaseException) -> int:
    """Print what failed, in one line, and return the exit code."""
    screen.print(f"the demo failed: {describe(error)}", style="red", markup=False, soft_wrap=True)
    return 1


class Demo:
    """One run; `close` removes everything that it made."""

    def __init__(self, folder: Path, fleet: Fleet, redis: str) -> None:
        self._folder = folder
        self._redis = redis
        self.fleet = fleet
        self.seen = Observer(fleet)

    def up(self) -> None:
        """Start operator and agents, apply the pools, and wait until all pools have the expected members."""
        with step("definitions, accounts, pools"):
            self.fleet.install()
            self.fleet.install_agents()
            for sample in ("pools", "generator"):
                self.fleet.kubectl("apply", "-f", str(REPOSITORY / "crds" / "samples" / f"{sample}.yaml"))
        self.seen.start()
        with step("operator and six agents with their services"):
            # All nodes are this machine, so that only loopback addresses lead to their services.
            self.fleet.start_operator("operator", "--allow-loopback-endpoints")
            for node, languages in LANGUAGES.items():
                own = [service("qwen", "llm")] if node in OWN_TYPE_NODES else []
                self.fleet.start_agent(node, [*translator(languages), *own])
            self._wait(EXPECTED, READY_SECONDS)

    def play(self) -> None:
        """Run the scripted hot-plug. Raises TooLate if an expectation is not met in time."""
        node, pool, _ = REACHED
        with SyncLookup.from_url(self._redis, namespace=NAMESPACE) as lookup:
            keys = (f"session-{number}" for number in count())
            session = next(key for key in keys if getattr(lookup.pick(pool, key=key), "node", "") == node)
            self._request(lookup, session, there=True)
            for where, command, id_, left in SCRIPT:
                time.sleep(BETWEEN_SECONDS)
                self._plug(where, command, id_, left)
                if (where, left) == (node, pool):
                    self._request(lookup, session, there=command == "start")
        self._wait(EXPECTED, STEP_SECONDS)

    def _request(self, lookup: SyncLookup, session: str, *, there: bool) -> None:
        """Send a request of a session to where a pick says. `there`: it must be the node of REACHED, or another one."""
        node, pool, type_ = REACHED

        def pick() -> Picked | None:
            picked = lookup.pick(pool, key=session, types=[type_])
            return picked if isinstance(picked, Picked) and (picked.node == node) == there else None

        picked = wait_for(f"a pick of {session} is {'' if there else 'not '}{node}", pick, STEP_SECONDS)
        assert picked  # noqa: S101 - for the type checker.
        url = picked.url(type_, path="/health")
        with urllib.request.urlopen(url, timeout=STEP_SECONDS) as response:  # noqa: S310 - of a service of the demo.
            screen.print(f"  GET {url} of {session}: {response.status} from {picked.node}", markup=False)

    def hints(self) -> None:
        """Print commands to try, after one that makes them short."""
        self.fleet.kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")
        variables = {"KUBECONFIG": str(self.fleet.admin), "HOTPOOL_REDIS_URL": self._redis}
        programs = [Path(sys.executable).parent, self.fleet.kubectl_program.parent]
        file = write_environment(self._folder, programs, {**variables, **self.fleet.agent_environment})
        screen.print("\nTry, in another terminal, and watch here; Ctrl-C removes everything:")
        for line in (f"source {file}", *COMMANDS):
            screen.print(f"  {line}", soft_wrap=True, markup=False)
        screen.print()

    def explain(self) -> None:
        """Print the ends of the logs, unless a failed service explains the failure."""
        if self.seen.failures:
            return
        for process in self._processes():
            screen.print(f"--- {process.name}\n{process.tail(5)}", markup=False)

    def close(self) -> None:
        """End the operator and the agents with their services."""
        self.seen.stop()
        self.fleet.close()

    def _plug(self, node: str, command: str, id_: str, pool: str) -> None:
        """Stop or start a service, and wait until slices and Redis show it."""
        nodes = EXPECTED[pool] if command == "start" else EXPECTED[pool] - {node}
        self.seen.focus(pool)
        if not screen.is_terminal:
            screen.print(f"  {command} {id_} on {node}")
        self.fleet.agent(node, command, id_)
        self._wait({pool: nodes}, STEP_SECONDS)

    def _wait(self, expected: Pools, seconds: float) -> None:
        def show(text: str) -> None:
            screen.print(f"  {text}", style="red", markup=False, soft_wrap=True)

        wait_for_pools(self.seen, self._processes(), expected, seconds, show)

    def _processes(self) -> list[ManagedProcess]:
        return [process for process in (self.fleet.operator, *self.fleet.agents.values()) if process]


def run(stack: ExitStack, folder: Path, *, once: bool) -> int:
    """Run the demo; return its exit code."""
    kind, kubectl = require_programs()
    require_redis()
    stack.enter_context(only_demo(clusters_folder().parent))
    redis = stack.enter_context(redis_url())
    with step("cluster"):
        stack.enter_context(cluster(CLUSTER, folder / "kubeconfig", kind))
    # All nodes are this machine, whatever the environment advertises: the demo connects to what it picks.
    fleet = Fleet(folder / "kubeconfig", kubectl, NAMESPACE, redis, advertise="127.0.0.1")
    demo = Demo(folder, fleet, redis)
    stack.callback(demo.close)

    def view() -> RenderableType:
        return render_screen(demo.seen, list(LANGUAGES))

    try:
        demo.up()
        if not once:
            demo.hints()
        with Live(get_renderable=view, console=screen, refresh_per_second=8) if screen.is_terminal else ExitStack():
            demo.play()
            if not once:
                # From now on Ctrl-C is the regular end.
                with suppress(SystemExit):
                    signal.pause()
    except FAILURES as error:
        demo.explain()
        return fail(error)
    if not screen.is_terminal:
        screen.print(view())
    return 0


def main() -> int:
    """Parse the command line, run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--once", action="store_true", help="exit after the script: 0 if every expectation was met, else 1"
    )
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hotpool-demo-"))
        # Temporary folders, also of child processes, are made in this one and removed with it after any interrupt.
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        unwind_on_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            return run(stack, Path(folder), once=options.once)
        except FAILURES as error:
            return fail(error)
        finally:
            ignore_signals()
            # The terminal may be closed.
            with suppress(OSError):
                screen.print("  removing everything ...")


def _exit_code() -> int:
    try:
        return main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1


if __name__ == "__main__":
    code = _exit_code()
    with suppress(OSError):
        sys.stdout.flush()
    # Not by the interpreter's own end: it aborts the program if a thread of a watch prints at that moment.
    os._exit(code)
