"""What must survive the agent: its identity, wishes and running processes (requirements A8, A11). I/O.

One JSON file per node, replaced atomically and synced; and the lock that keeps a second agent of the same node away.
Must not decide what a wish or a leftover means.
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

SCHEMA: Final = 1
_RETRY_SECONDS: Final = 1.0
_LOG: Final = structlog.get_logger(__name__)


class StoreError(Exception):
    """The state folder cannot be used; the message says why and what to do."""


class StoredServiceState(BaseModel):
    """What is remembered of one service."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    desired: str | None = None
    """Running or Stopped, where a user said so."""
    desired_by: str | None = None
    acted: tuple[str, str] | None = None
    """(desired, requestID) of the cluster's command last acted on (requirement A2)."""
    pid: int | None = None
    started: int | None = None
    recipe: str | None = None
    """Digest of how the process was run; another one in the catalogue makes it unfit for adoption."""
    since: str | None = None
    """When it became Running; None while it loads."""
    penalty: float = 0.0
    """Flap penalty at `penalty_at`, seconds of the wall clock, because it must outlast the machine's boot."""
    penalty_at: float = 0.0
    suppressed: bool = False


class _Version(BaseModel):
    """What every version of the state file has."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    schema_version: int = SCHEMA


class State(_Version):
    """The whole state file."""

    instance: str
    boot: str = ""
    """The machine's boot in which the processes below were started: pids and start times repeat in the next one."""
    services: dict[str, StoredServiceState] = {}


@dataclass
class StateStore:
    """The state file of one node. Change `state`, then `save`; a wish is safe when `flush_within` said so."""

    folder: Path
    state: State
    unreadable_copy: Path | None = None
    """Where a state file that could not be read was put."""
    problem: str | None = None
    """Why the file does not show the present state."""
    _dirty: asyncio.Event = field(default_factory=asyncio.Event)
    _clean: asyncio.Condition = field(default_factory=asyncio.Condition)
    _saved: int = 0
    _changed: int = 0

    def save(self) -> None:
        """Have the state written soon; several changes become one write."""
        self._changed += 1
        self._dirty.set()

    async def flush_within(self, seconds: float) -> bool:
        """Wait until everything changed so far is on disk; False if it is not within the time."""
        wanted = self._changed
        try:
            async with asyncio.timeout(seconds), self._clean:
                await self._clean.wait_for(lambda: self._saved >= wanted)
        except TimeoutError:
            return False
        return True

    async def write_forever(self) -> None:
        """The only writer: off the event loop, one write at a time."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            mark, text = self._changed, self.state.model_dump_json(by_alias=True, indent=1)
            try:
                await asyncio.to_thread(write_atomically, self.folder / "state.json", text)
            except OSError as error:
                if self.problem is None:
                    _LOG.error("state file not written, trying again", error=str(error))
                self.problem = f"state file not written: {error.strerror}: {self.folder}"
                self._dirty.set()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self.problem = None
            async with self._clean:
                self._saved = mark
                self._clean.notify_all()


def open_store(folder: Path) -> StateStore:
    """The store in the folder, made anew if there is none. Raises StoreError for one that a newer agent wrote."""
    path = folder / "state.json"
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


def write_atomically(path: Path, text: str) -> None:
    """Replace the file so that after a power loss either the old or the new text is there, whole."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(folder: Path, node: str) -> IO[str]:
    """Take the node's lock for as long as the returned file is open. Raises StoreError if another agent has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    file = (folder / "lock").open("a+", encoding="utf-8")
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
    # The pid is for people: a full disk must not keep the agent away.
    with suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), str(os.getpid()).encode())
    return file
