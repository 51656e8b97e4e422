"""The wiring of a running agent: settings → state → node → reporter, heartbeat, watch, control; and its shut-down.

Called by the command line. The only place that knows all parts; holds no rule of its own but the order of start and end
(behaviour A9, B10).
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import structlog

from hotpool_agent import __version__, control, control_server, host, probe
from hotpool_agent.bounds import Dropped, bounded_services
from hotpool_agent.catalogue import Catalogue
from hotpool_agent.credentials import Target
from hotpool_agent.heartbeat import Heartbeat
from hotpool_agent.node import CommandError, Links, Node
from hotpool_agent.own_watch import OwnWatch
from hotpool_agent.paths import socket_path, state_folder
from hotpool_agent.publish import Cluster
from hotpool_agent.report import Facts
from hotpool_agent.reporter import Reporter
from hotpool_agent.settings import Settings
from hotpool_agent.store import Store, lock, open_store

_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    catalogue: Catalogue
    base: Path
    """The catalogue's folder."""
    node: str
    target: Target
    settings: Settings


class Agent:
    """All parts of one agent, connected; nothing runs yet."""

    def __init__(self, options: Options, cluster: Cluster, store: Store) -> None:
        settings = options.settings
        self.settings = settings
        self.store = store
        self.cluster = cluster
        self.facts = Facts(
            agent_version=__version__,
            instance=store.state.instance,
            session=uuid4().hex,
            interval=settings.interval,
            platform=host.this_platform(),
            hardware=host.this_hardware(),
        )
        self.node = Node(options.catalogue, options.base, self.facts, store, settings)
        self.reporter = Reporter(cluster, self.facts, settings, self.node.content)
        self.heartbeat = Heartbeat(cluster, settings, self.reporter.holder, self.reporter.news)
        self.watch = OwnWatch(cluster, settings, self.reporter.observe)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`, then shut down in order. Raises what a part died of."""
        async with probe.new_session() as session, _background([self.store.write_forever()]) as background:
            await self.node.start(session, Links(self.reporter.changed, self.reporter.withdrawn))
            background.extend(
                asyncio.create_task(work) for work in (self.reporter.run(), self.heartbeat.run(), self.watch.run())
            )
            ended = asyncio.create_task(stop.wait())
            await asyncio.wait([ended, *background], return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            await self._shut_down()

    async def dispatch(self, request: control.Request) -> Any:
        """Answer the local command line (behaviour A2)."""
        if request.op == "status":
            return self._status(request.id)
        if request.id is None:
            raise control.RequestError("which service? give its id")
        try:
            return await self.node.command(request.op, request.id, wait=request.wait)
        except CommandError as error:
            raise control.RequestError(str(error)) from error

    def _status(self, identifier: str | None) -> dict[str, Any]:
        known = self.node.services
        if identifier is not None and identifier not in known:
            raise control.RequestError(f"{identifier}: no such service; there are: {', '.join(known) or 'none'}")
        wanted = [service.snapshot() for name, service in known.items() if identifier in {None, name}]
        return {
            "node": self.cluster.node,
            "namespace": self.cluster.namespace,
            "instance": self.facts.instance,
            "session": self.facts.session,
            "epoch": self.reporter.epoch,
            "sequence": self.reporter.sequence,
            "acceptedAt": self.reporter.accepted_at,
            "leaving": self.node.leaving,
            "problems": {
                part: problem
                for part, problem in (
                    ("report", self.reporter.problem),
                    ("heartbeat", self.heartbeat.problem),
                    ("watch", self.watch.problem),
                )
                if problem
            },
            "services": [s.model_dump(mode="json", by_alias=True) for s in bounded_services(wanted, Dropped())],
        }

    async def _shut_down(self) -> None:
        """`leaving` is reported first; then services end, side by side; then the last state is reported (B10)."""
        _LOG.info("shutting down")
        self.node.halt()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.announce_seconds):
                await self.reporter.flush()
        await self.node.settle()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.request_seconds if self.reporter.problem is None else 0):
                await self.reporter.flush()
        await self.store.flush_within(self.settings.request_seconds)
        await self.node.close()


async def run_agent(options: Options) -> None:
    """Run the agent of one node until SIGTERM or SIGINT. Raises TargetError, StoreError or PathError."""
    folder = state_folder(options.settings, options.node)
    path = socket_path(folder)
    with lock(folder, options.node):
        store = open_store(folder)
        if store.moved:
            _LOG.error("state file was unreadable; beginning anew", moved_to=str(store.moved))
        cluster = Cluster(options.target, options.node, options.settings.request_seconds)
        await cluster.connect()
        agent = Agent(options, cluster, store)
        server = await control_server.serve(path, agent.dispatch)
        try:
            await agent.run(_stop_on_signals())
        finally:
            server.close()
            path.unlink(missing_ok=True)
            await cluster.close()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # The catalogue will be read again here (behaviour A10); until then SIGHUP must not end the agent.
    loop.add_signal_handler(signal.SIGHUP, _LOG.warning, "SIGHUP: reading the catalogue again is not supported yet")
    return stop


@asynccontextmanager
async def _background(works: Iterable[Any]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that end with the block; what one of them died of is raised at its end."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield tasks
    finally:
        died = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in died:
        task.result()
