"""Runs `hotpool-agent` as a process of its own."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support.fake_api import FakeApi

from localfleet.process import ended_with_parent


@dataclass
class Result:
    """The result of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Awaitable[Result]]
"""A function that runs `hotpool-agent` with these words to its end."""


async def spawn(
    environment: dict[str, str], *arguments: str, inside: Sequence[str] = (), errors: IO[bytes] | None = None
) -> asyncio.subprocess.Process:
    """Start `hotpool-agent` with these words.

    `inside`: the words of a program that executes it. `errors`: a file for its standard error; the default is a pipe.
    """
    pipe = asyncio.subprocess.PIPE
    words = (*ended_with_parent(), *inside, sys.executable, "-m", "hotpool_agent", *arguments)
    return await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=errors or pipe, env=environment)


async def finish(process: asyncio.subprocess.Process) -> Result:
    """Wait for the end of a process; return its result."""
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), (err or b"").decode())


@asynccontextmanager
async def daemon(
    api: FakeApi,
    folder: Path,
    environment: dict[str, str],
    services: str,
    *,
    node: str = "n1",
    inside: Sequence[str] = (),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an agent as a process of its own, whose first report is accepted; end it by SIGTERM."""
    catalogue = folder / f"{node}.yaml"
    catalogue.write_text(f"version: 1\nservices:\n{services}", encoding="utf-8")
    words = ["run", "--catalogue", str(catalogue), "--node", node, "--kubeconfig", str(api.kubeconfig(folder))]
    process = await spawn(environment, *words, "--interval", "1", "--debounce", "0.1", inside=inside)
    try:
        await api.until(lambda: api.report(node), seconds=30)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 60)
