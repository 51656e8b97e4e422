"""Kubeconfigs that kubectl understands, read by the real programs (requirement F5).

The comparison with the real kubectl is in tests/cluster/cli/test_kubeconfigs.py.
"""

import asyncio
import os
import pty
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.kubeconfig_cases import CASES, PROXY_VARIABLES, Run, Setup, one
from tests.support.recording_api import Access, RecordingApi, recording_api

from hotpool.common import exit_codes
from localfleet.ports import free_port
from localfleet.process import ManagedProcess, wait_for

ASKING: Final = """
import json, os, sys
print("PIN?", file=sys.stderr)
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["spec"]["interactive"]
print(json.dumps(info | {"status": {"token": sys.stdin.readline().strip()}}))
"""
WITHOUT_CLUSTER: Final = "{current-context: a, contexts: [{name: a, context: {cluster: c}}]}"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RecordingApi]:
    async with recording_api(tmp_path) as api:
        yield api


@pytest.fixture
async def setup(api: RecordingApi, tmp_path: Path) -> Setup:
    """Return the setup of the program under test."""
    (tmp_path / "case").mkdir()
    authority = api.authority
    return Setup(tmp_path / "case", await api.new_port(), api.proxy.url, authority.path, authority.issue("alice"))


def environment(run: Run, folder: Path) -> dict[str, str]:
    """Return the environment of a run, without proxies and kubeconfigs of this machine."""
    kept = {name: value for name, value in os.environ.items() if name not in {*PROXY_VARIABLES, "KUBECONFIG"}}
    return kept | {"HOME": str(folder), **run.environment}


async def hotpool(run: Run, folder: Path, *words: str, answers: int | None = None) -> tuple[int | None, str]:
    """Run a command of `hotpool`; return its exit code and output. `answers`: its standard input."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hotpool", *words),
        env=environment(run, folder),
        stdin=asyncio.subprocess.DEVNULL if answers is None else answers,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    return child.returncode, output.decode()


def bearer(name: str, token: str, namespace: str = "default", way: str = "direct") -> set[Access]:
    """Return the accesses of a program that uses a token."""
    return {Access(name, (f"Bearer {token}", ""), namespace, way)}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("the first of two files", bearer("", "token-first", "alpha")),
        ("token file with newlines", bearer("", "from-file")),
    ],
)
async def test_a_command_reaches_the_server_of_the_kubeconfig(
    api: RecordingApi, setup: Setup, case: str, expected: set[Access]
) -> None:
    code, output = await hotpool(CASES[case](setup), setup.folder, "top")
    assert (code, api.accesses[setup.port]) == (exit_codes.NOT_FOUND, expected), output  # no fleet is there


async def test_all_watches_of_the_operator_use_the_proxy_and_the_tls_name_of_the_kubeconfig(
    api: RecordingApi, setup: Setup
) -> None:
    run, listen = CASES["proxy-url and tls-server-name"](setup), f"127.0.0.1:{free_port()}"
    words = (sys.executable, "-m", "hotpool", "operator", "-n", "fleet", "--listen", listen)
    variables = environment(run, setup.folder)
    process = ManagedProcess("operator", words, setup.folder / "log", variables)
    try:
        log = setup.folder / "log"
        leads = lambda: setup.port in api.watched and '"leading"' in log.read_text(encoding="utf-8")  # noqa: E731
        await asyncio.to_thread(wait_for, "kopf watches and the operator leads", leads, 30)
    finally:
        await asyncio.to_thread(process.stop)
    credential = b64encode(b"user:p@ss").decode()
    namespaced = {access for access in api.accesses[setup.port] if access.namespace == "fleet"}
    assert namespaced == bearer("other.test", "token-config", "fleet", f"proxy Basic {credential}")


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo log in again >&2; exit 3", "exit code 3: log in again"), ("echo {}", "not an ExecCredential")],
)
async def test_a_failing_exec_plugin_ends_a_command_with_the_plugins_error(
    api: RecordingApi, setup: Setup, script: str, reason: str
) -> None:
    path = setup.config(user=setup.plugin(command="/bin/sh", args=["-c", script]))
    code, output = await hotpool(one(path), setup.folder, "top")
    assert code == exit_codes.UNAVAILABLE
    assert output.startswith("hotpool top: exec plugin /bin/sh: ")
    assert reason in output
    assert len(output.splitlines()) == 1
    assert api.accesses[setup.port] == set()


async def test_an_exec_plugin_may_ask_a_person_at_the_terminal(api: RecordingApi, setup: Setup) -> None:
    user = setup.plugin(command=sys.executable, args=["-S", "-c", ASKING], interactiveMode="Always")
    terminal, stdin = pty.openpty()
    os.write(terminal, b"1234\n")
    code, output = await hotpool(one(setup.config(user=user)), setup.folder, "top", answers=stdin)
    os.close(terminal)
    os.close(stdin)
    assert (code, output.partition("?")[0]) == (exit_codes.NOT_FOUND, "PIN"), output
    assert api.accesses[setup.port] == bearer("", "1234")


@pytest.mark.parametrize(
    ("command", "content", "line"),
    [
        ("top", "", "no cluster chosen: FILE is empty; see --kubeconfig and --context"),
        ("top", "[]", "no usable kubeconfig (FILE): it is not a mapping with clusters, users and contexts"),
        ("top", "{", "no usable kubeconfig (FILE): while parsing a flow"),
        ("top", "clusters: [1]", "no usable kubeconfig (FILE): each item of clusters needs name and cluster"),
        ("top", "users: 5", "no usable kubeconfig (FILE): users is not a list"),
        ("top", "current-context: a", "no context a in FILE; it has: none"),
        ("top", WITHOUT_CLUSTER, "no usable kubeconfig (FILE): context a has no cluster in the file"),
        ("pick", "current-context: a", "no context a in FILE; it has: none"),
    ],
)
async def test_a_kubeconfig_that_is_not_usable_is_an_error_of_one_line(
    setup: Setup, command: str, content: str, line: str
) -> None:
    path = str(setup.folder / setup.text("config", content))
    more = ("pool", "--redis", "redis://127.0.0.1:1") if command == "pick" else ()
    code, output = await hotpool(one(path), setup.folder, command, *more)
    assert (code, len(output.splitlines())) == (exit_codes.UNAVAILABLE, 1), output
    assert output.startswith(f"hotpool {command}: {line.replace('FILE', path)}")


async def test_a_user_without_a_home_folder_in_the_list_of_kubeconfigs_is_skipped(
    api: RecordingApi, setup: Setup
) -> None:
    run = Run({"KUBECONFIG": f"~no-such-user/config:{setup.config()}"})
    code, output = await hotpool(run, setup.folder, "top")
    assert (code, api.accesses[setup.port]) == (exit_codes.NOT_FOUND, bearer("", "token-config")), output
