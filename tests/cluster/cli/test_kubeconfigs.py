"""Every program reads kubeconfigs and environments as kubectl does (requirement F5).

The real kubectl and each of our ways to the API server meet one server, which records how they reached it.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest import mock

from aiohttp import ClientError
from click.testing import CliRunner
from kubernetes.aio.client.exceptions import ApiException
from tests.support.kubeconfig_cases import CASES, PROXY_VARIABLES, Run, Setup
from tests.support.recording_api import Access, RecordingApi, recording_api

from hotpool.cli.program import app
from hotpool.common.kubeconfig import Target, TargetError, namespace_of
from hotpool.kube import custom_resource_watch
from hotpool.kube.client import ApiUnavailable, connected
from hotpool.kube.election_lease import ElectionLease
from hotpool_agent.kube.errors import KubeError
from hotpool_agent.kube.http_client import KubeHttpClient
from localfleet.kind import kind_program, kubectl_program
from localfleet.process import wait_for

SECONDS: Final = 20.0
Program = Callable[[Run, RecordingApi, int], Coroutine[None, None, None]]


async def agent(run: Run, _api: RecordingApi, _port: int) -> None:
    """Read with the agent's client."""
    http = KubeHttpClient(Target(run.kubeconfig, run.context), SECONDS)
    await http.open()
    try:
        await http.get(f"/apis/hotpool.dev/v1alpha1/namespaces/{http.namespace}/nodecapabilities")
    finally:
        await http.close()


async def election(run: Run, _api: RecordingApi, _port: int) -> None:
    """Read the election Lease with the client of its thread."""
    target = Target(run.kubeconfig, run.context)
    async with connected(target) as connection:
        lease = ElectionLease(connection.login, namespace_of(target))
        await asyncio.to_thread(lease.read)
        await asyncio.to_thread(lease.close)


async def kopf_watch(run: Run, api: RecordingApi, port: int) -> None:
    """Watch with kopf until its watch is open. kopf would try again without end where its session cannot connect."""
    target, stop = Target(run.kubeconfig, run.context), asyncio.Event()
    async with connected(target) as connection:
        async with connection.new_session() as session, session.get(f"{connection.login.current.server}/api"):
            pass
        handlers = custom_resource_watch.registry(lambda *_: None, connection)
        watching = custom_resource_watch.watch(
            handlers, namespace_of(target), handle_signals=lambda: None, ready=asyncio.Event(), stop=stop
        )
        task = asyncio.create_task(watching)
        await asyncio.to_thread(wait_for, "kopf watches", lambda: port in api.watched or task.done(), SECONDS)
        stop.set()
        await task


def command(*words: str) -> Program:
    """Return a program that runs a command of `hotpool`; it must end without a traceback."""

    async def program(run: Run, _api: RecordingApi, _port: int) -> None:
        options = (("--kubeconfig", run.kubeconfig), ("--context", run.context))
        more = [word for option in options if option[1] for word in option if word]
        result = await asyncio.to_thread(CliRunner().invoke, app.load(words[0]), [*words[1:], *more])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception

    return program


OURS: Final = {"agent": agent, "election": election, "kopf": kopf_watch, "top": command("top")}
MORE: Final = {"why": command("why", "--node", "n1"), "enroll": command("enroll", "n1", "-o", "-")}
REFUSALS: Final = (TargetError, ApiUnavailable, KubeError)
NO_CONNECTION: Final = (ApiException, ClientError)
EXTENDED: Final = {"the first of two files", "proxy-url and tls-server-name"}
"""Cases that the other commands run, too."""


@contextmanager
def environment(run: Run, folder: Path) -> Iterator[dict[str, str]]:
    """Set the environment of a run, without proxies and kubeconfigs of this machine."""
    kept = {name: value for name, value in os.environ.items() if name not in {*PROXY_VARIABLES, "KUBECONFIG"}}
    variables = kept | {"HOME": str(folder / "home"), **run.environment}
    with mock.patch.dict(os.environ, variables, clear=True):
        yield variables


async def new_setup(api: RecordingApi, folder: Path, case: str, program: str) -> Setup:
    """Return the setup of one program in one case."""
    own = folder / program / case
    own.mkdir(parents=True)
    authority = api.authority
    return Setup(own, await api.new_port(), api.proxy.url, authority.path, authority.issue("alice"))


async def kubectl(api: RecordingApi, folder: Path, case: str, limit: asyncio.Semaphore) -> set[Access]:
    """Return how kubectl reached the server."""
    setup = await new_setup(api, folder, case, "kubectl")
    run = CASES[case](setup)
    words = [f"--{key}={value}" for key, value in (("kubeconfig", run.kubeconfig), ("context", run.context)) if value]
    with environment(run, folder) as variables:
        pass
    async with limit:
        child = await asyncio.create_subprocess_exec(
            kubectl_program(kind_program()),
            *("get", "nodepools.v1alpha1.hotpool.dev", "-o", "name", "--request-timeout=20s"),
            *(f"--cache-dir={setup.folder / 'cache'}", *words),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await child.communicate()
    assert (child.returncode == 0) == bool(api.accesses[setup.port]), (case, output.decode())
    return api.accesses[setup.port]


async def reach(api: RecordingApi, folder: Path, case: str, name: str, program: Program) -> set[Access] | str:
    """Return how one of our programs reached the server, or an unexpected error."""
    setup = await new_setup(api, folder, case, name)
    run = CASES[case](setup)
    with environment(run, folder):
        # A loop of its own: kopf ends the tasks of its loop.
        problem = await asyncio.to_thread(_run, program, run, api, setup.port)
    return problem or api.accesses[setup.port]


def _run(program: Program, run: Run, api: RecordingApi, port: int) -> str:
    """Run a program. Return its error if that is not a refusal in one line."""
    try:
        asyncio.run(program(run, api, port))
    except Exception as error:  # noqa: BLE001 - compared with the expectation
        refused = isinstance(error, NO_CONNECTION) or (isinstance(error, REFUSALS) and "\n" not in str(error))
        return "" if refused else f"{type(error).__name__}: {error}"
    return ""


async def test_every_program_reaches_the_server_as_kubectl_does(tmp_path: Path) -> None:
    limit = asyncio.Semaphore(2)
    async with recording_api(tmp_path) as api:
        found_by_kubectl = await asyncio.gather(*(kubectl(api, tmp_path, case, limit) for case in CASES))
        expected = dict(zip(CASES, found_by_kubectl, strict=True))
        different = []
        for case, accesses in expected.items():
            for name, program in (OURS | (MORE if case in EXTENDED else {})).items():
                found = await reach(api, tmp_path, case, name, program)
                if found != accesses:
                    different.append(f"{case}, {name}: kubectl {accesses}, here {found}")
        assert not different, "\n".join(different)
        assert sum(map(bool, expected.values())) >= 30  # the others are refused by all
