"""State that must survive the agent: its identity, desired states and running processes (requirements A8, A11). I/O.

One JSON file per node, replaced atomically and synced, and the lock that excludes a second agent of the same node. Must
not decide what a desired state or an orphaned process means.
"""

import asyncio
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from hotpool.api.capability import Gpu
from hotpool.common.atomic_file import write_atomically
from hotpool_agent.blocking import run_blocking
from hotpool_agent.notifier import Notifier

SCHEMA: Final = 1
LAST_ERROR_LENGTH: Final = 1024
"""Longest stored error of a service, as in the report."""
_RETRY_SECONDS: Final = 1.0
_SLOW_SECONDS: Final = 5.0
"""Time after which a write counts as failed. It goes on, because a second one would hang as well."""
_LOG: Final = structlog.get_logger(__name__)


class StoreError(Exception):
    """The state folder cannot be used; the message says why and what to do."""


class StoredServiceState(BaseModel):
    """Stored state of one service."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    desired: str | None = None
    """Running or Stopped, as a user last commanded; None without a command."""
    desired_by: str | None = None
    auto_start: bool | None = None
    """`autoStart` in the last catalogue; None for a service without one yet."""
    acted: tuple[str, str] | None = None
    """(desired, requestID) of the last command from the cluster that was carried out (requirement A2)."""
    pid: int | None = None
    started: int | None = None
    recipe: str | None = None
    """Launch digest of the process; it is not adopted if the catalogue has another one."""
    since: str | None = None
    """Time at which it became Running; None while it loads."""
    penalty: float = 0.0
    """Flap penalty at `penalty_at`, in seconds of the wall clock because it must survive a reboot."""
    penalty_at: float = 0.0
    suppressed: bool = False
    restarts: int = 0
    """Restarts after crashes since the service is in the catalogue."""
    last_error: str | None = None
    """The last failure, until a command or a stop; at most LAST_ERROR_LENGTH characters."""
    last_output: tuple[str, ...] = ()
    """The last output lines before it, as bounded by `services.output_tail`."""
    removed: bool = False
    """True if the catalogue no longer has the service, and the node's object still has its last command."""


class _Version(BaseModel):
    """Fields of every version of the state file."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    schema_version: int = SCHEMA


class State(_Version):
    """Content of the state file."""

    instance: str
    draining: bool = False
    """True while the owner drains the node. Only a command ends it, never a restart (requirement C5)."""
    boot: str = ""
    """Id of the boot in which the processes below were started; pids and start times may repeat after the next one."""
    gpus: dict[str, tuple[Gpu, ...]] = {}
    """Vendor → GPUs as last read, for the first report of the next process."""
    services: dict[str, StoredServiceState] = {}


@dataclass
class StateStore:
    """State file of one node. Change `state`, then call `save`. A change is on disk once `flush_within` is True."""

    folder: Path
    state: State
    unreadable_copy: Path | None = None
    """Path to which an unreadable state file was moved."""
    problem: str | None = None
    """Error of the last write; None after a success."""
    _dirty: asyncio.Event = field(default_factory=asyncio.Event)
    _written: Notifier = field(default_factory=Notifier)
    _saved: int = 0
    _changed: int = 0

    def save(self) -> None:
        """Schedule a write of the state. Several changes become one write."""
        self._changed += 1
        self._dirty.set()

    async def flush_within(self, seconds: float) -> bool:
        """Wait until all changes so far are on disk. Return False after a time-out."""
        target = self._changed
        try:
            async with asyncio.timeout(seconds):
                await self._written.wait_for(lambda: self._saved >= target)
        except TimeoutError:
            return False
        return True

    async def write_forever(self) -> None:
        """Write changes as the only writer, in a thread and one at a time. Failed writes are retried."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            version = self._changed
            try:
                await self._write(self.state.model_dump_json(by_alias=True, indent=1))
            except (OSError, ValueError) as error:
                self._set_problem(getattr(error, "strerror", None) or str(error))
                self._dirty.set()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self.problem = None
            self._saved = version
            self._written.notify()

    async def _write(self, text: str) -> None:
        """Write the file, however long that takes."""
        write = asyncio.ensure_future(run_blocking(lambda: write_atomically(self.folder / "state.json", text)))
        try:
            done, _ = await asyncio.wait({write}, timeout=_SLOW_SECONDS)
            if not done:
                self._set_problem("the file system does not respond")
            await write
        finally:
            write.cancel()

    def _set_problem(self, reason: str) -> None:
        if self.problem is None:
            _LOG.error("state file not written, trying again", error=reason)
        self.problem = f"state file not written: {reason}: {self.folder}"


def open_store(folder: Path) -> StateStore:
    """Open the folder's store, with a new state if the file is missing or unreadable, and delete temporary files.

    Raises StoreError if a newer agent wrote the file.
    """
    path = folder / "state.json"
    for temporary in folder.glob(f".{path.name}.*"):
        temporary.unlink(missing_ok=True)
    fresh = State(instance=uuid4().hex)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return StateStore(folder, fresh)
    try:
        if _Version.model_validate_json(data).schema_version > SCHEMA:
            raise StoreError(f"{path} was written by a newer hotpool-agent; install that one, or remove the file")
        return StateStore(folder, State.model_validate_json(data))
    except ValidationError:
        aside = path.with_suffix(".unreadable")
        path.rename(aside)
        return StateStore(folder, fresh, unreadable_copy=aside)


def lock(folder: Path, node: str) -> IO[str]:
    """Lock the node until the returned file is closed.

    Raises StoreError if the folder cannot be used, or another agent holds the lock.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        file = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{folder} cannot hold the agent's state: {error.strerror}; set HOTPOOL_AGENT_STATE_DIR to another folder"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StoreError(
            f"an agent of node {node!r} runs on this machine already (pid {holder}); "
            "stop it, or give this one another --node"
        ) from error
    # The pid is only for the message above, so the agent must start even if a full disk refuses it.
    with suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), str(os.getpid()).encode())
    return file
