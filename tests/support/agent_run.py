"""Runs an agent inside a test: real service processes, real HTTP, short times."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.fake_api import FakeApi

from hotpool.common.kubeconfig import Target
from hotpool_agent.app import Agent, Options
from hotpool_agent.catalogue.loader import empty_catalogue, read_catalogue
from hotpool_agent.kube.http_client import KubeHttpClient
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.services.controller import ServiceController
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import lock, open_store
from hotpool_agent.stop_signals import StopSignals
from localfleet.kind import REPOSITORY

FAKE: Final = REPOSITORY / "tools" / "localfleet" / "service.py"
QUICK: Final[dict[str, Any]] = {
    "interval": 1,
    "debounce": 0.2,
    "backoff_seconds": 0.05,
    "announce_seconds": 2.0,
    "stop_seconds": 1.0,
    "request_seconds": 1.0,
    "restart_seconds": 0.05,
    "restart_limit_seconds": 1.0,
    "flap_half_life_seconds": 1.0,
    "listen": "127.0.0.1:0",
}


def supervised(identifier: str, port: int, *arguments: str, type_: str = "asr", more: str = "") -> str:
    """Return a catalogue entry that runs the fake service; `more`: further fields, one a line, indented by two."""
    command = ", ".join(f'"{word}"' for word in (sys.executable, str(FAKE), "--port", str(port), *arguments))
    return (
        f"- id: {identifier}\n  type: {type_}\n  port: {port}\n  preStopSeconds: 0.02\n"
        f"  run: {{command: [{command}]}}\n"
        + (more or "  ready: {http: {path: /health}, periodSeconds: 0.1, timeoutSeconds: 2, startSeconds: 20}\n")
    )


@dataclass
class Running:
    """An agent that runs in this process."""

    agent: Agent
    stop: asyncio.Event
    task: asyncio.Task[None]

    def service(self, identifier: str) -> ServiceController:
        """Return one of its services."""
        return self.agent.services.services[identifier]

    def state(self, identifier: str) -> str:
        """Return the state of a service."""
        return self.service(identifier).machine.state

    async def until(self, identifier: str, *states: str, seconds: float = 10) -> None:
        """Wait until a service is in one of the states."""
        await eventually(lambda: identifier in self.agent.services.services)
        async with asyncio.timeout(seconds):
            await self.service(identifier).notifier.wait_for(lambda: self.state(identifier) in states)

    def alive(self) -> bool:
        """Return True if the agent runs; raise the exception that ended it."""
        if self.task.done():
            self.task.result()
        return not self.task.done()

    async def shut_down(self) -> None:
        """Shut the agent down, as SIGTERM does."""
        self.stop.set()
        async with asyncio.timeout(20):
            await self.task


def capability(api: FakeApi, type_: str = "asr") -> tuple[bool, str | None]:
    """Return ready and reason of a type in the stored report."""
    report = api.report("n1") or {"capabilities": []}
    return next(
        ((item["ready"], item["reason"]) for item in report["capabilities"] if item["type"] == type_), (False, "")
    )


def write_catalogue(folder: Path, services: str, *, node: str = "n1", head: str = "") -> Path:
    """Write the node's catalogue file with these entries; a running agent reads it at its next reload."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{node}.yaml"
    path.write_text(f"version: 1\n{head}" + (f"services:\n{services}" if services else ""), encoding="utf-8")
    return path


@asynccontextmanager
async def agent_running(
    folder: Path, kubeconfig: Path | None, services: str | None, *, node: str = "n1", head: str = "", **settings: Any
) -> AsyncIterator[Running]:
    """Run an agent with these catalogue entries and its state under `folder`.

    At the end of the block it ends as by a crash, unless it was shut down. Without a kubeconfig it finds its cluster by
    itself. `services` None: no catalogue at all.
    """
    source = None if services is None else write_catalogue(folder, services, node=node, head=head)
    target = Target(kubeconfig=str(kubeconfig) if kubeconfig else None, namespace=settings.pop("namespace", None))
    chosen = Settings(**(QUICK | settings))
    catalogue = read_catalogue(source) if source else empty_catalogue()
    state = folder / node
    with lock(state, node):
        store = open_store(state)
        client = KubeHttpClient(target, chosen.request_seconds)
        await client.open()
        agent = Agent(Options(catalogue, source, node, target, chosen), NodeResources(client, node), store)
        signals = StopSignals()
        running = Running(agent, signals.stop, asyncio.create_task(agent.run(signals)))
        try:
            yield running
        finally:
            if not running.task.done():
                await agent.store.flush_within(5)
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)
            await agent.services.close()
            await client.close()


async def eventually(condition: Callable[[], object], seconds: float = 10, pause: float = 0.01) -> None:
    """Poll a condition that sends no notification, such as a process; raise TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process sends no notification
            await asyncio.sleep(pause)
