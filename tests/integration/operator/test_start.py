"""Start of `hotpool operator`: its namespace, and errors of old definitions, bad input or a port in use."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.read_api import ReadApi

from hotpool.api.meta import SCHEMA_REVISION, SCHEMA_REVISION_ANNOTATION
from localfleet.ports import free_port

PROGRAM = str(Path(sys.executable).with_name("hotpool"))
NAME = "nodecapabilities.hotpool.dev"


class Definitions:
    """An API server that serves CustomResourceDefinitions of one revision, or none, and no namespace."""

    def __init__(self) -> None:
        self.revision: int | None = None
        self.url = ""
        self.namespaces: list[str] = []
        """Namespaces that were read."""
        self.refused = 0
        """Number of next requests that get 403."""

    async def answer(self, request: web.Request) -> web.Response:
        if self.refused:
            self.refused -= 1
            return web.json_response({"kind": "Status", "message": "not you"}, status=403)
        if request.path.startswith("/api/v1/namespaces/"):
            self.namespaces.append(request.path.rpartition("/")[2])
            return web.json_response({"kind": "Status", "message": "no such namespace"}, status=404)
        if self.revision is None:
            return web.json_response({"kind": "Status", "message": "no such definition"}, status=404)
        metadata = {
            "name": request.path.rpartition("/")[2],
            "annotations": {SCHEMA_REVISION_ANNOTATION: f"{self.revision}"},
        }
        names = {"kind": "NodeCapability", "plural": "nodecapabilities"}
        spec = {"group": "hotpool.dev", "names": names, "scope": "Namespaced", "versions": []}
        return web.json_response({"metadata": metadata, "spec": spec})


@pytest.fixture
async def definitions() -> AsyncIterator[Definitions]:
    served, app = Definitions(), web.Application()
    app.router.add_route("*", "/{tail:.*}", served.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


@pytest.mark.parametrize(
    ("revision", "found"),
    [
        (None, "is not installed"),
        (SCHEMA_REVISION - 1, f"has revision {SCHEMA_REVISION - 1}, {SCHEMA_REVISION} is needed"),
    ],
)
async def test_older_definitions_are_refused_with_the_commands_that_update_them(
    definitions: Definitions, tmp_path: Path, revision: int | None, found: str
) -> None:
    definitions.revision = revision
    api = ReadApi()
    api.url = definitions.url
    code, output = await run_operator(
        "--kubeconfig", str(api.kubeconfig(tmp_path)), "--listen", f"127.0.0.1:{free_port()}"
    )
    assert code == 1
    assert f"{NAME.partition('.')[0]} {found}: kubectl apply --server-side -f crds/" in output
    helm = "helm show crds CHART | kubectl apply --server-side --field-manager=helm --force-conflicts -f -"
    assert helm in output


async def test_an_operator_without_rights_says_once_which_it_needs(definitions: Definitions, tmp_path: Path) -> None:
    definitions.refused = 2
    definitions.revision = SCHEMA_REVISION
    api = ReadApi()
    api.url = definitions.url
    _, output = await run_operator(
        "--kubeconfig", str(api.kubeconfig(tmp_path)), "--listen", f"127.0.0.1:{free_port()}"
    )
    assert definitions.refused == 0
    _, waiting, _ = output.splitlines()
    assert json.loads(waiting)["error"] == f"cannot get customresourcedefinitions/{NAME}: 403 Forbidden: not you"
    assert "ClusterRole hotpool-NAMESPACE-operator" in json.loads(waiting)["advice"]


@pytest.mark.parametrize(
    ("words", "environment", "namespace"),
    [
        ((), {}, "fleet"),
        ((), {"HOTPOOL_NAMESPACE": "other"}, "other"),
        (("-n", "speech"), {"HOTPOOL_NAMESPACE": "other"}, "speech"),
    ],
)
async def test_a_namespace_that_does_not_exist_is_refused_by_its_name(
    definitions: Definitions, tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], namespace: str
) -> None:
    definitions.revision = SCHEMA_REVISION
    api = ReadApi()
    api.url = definitions.url
    options = ("--kubeconfig", str(api.kubeconfig(tmp_path)), "--listen", f"127.0.0.1:{free_port()}")
    code, output = await run_operator(*words, *options, namespace=None, **environment)
    started, error = output.splitlines()
    assert (code, definitions.namespaces) == (1, [namespace])
    assert json.loads(started).items() >= {"event": "starting", "namespace": namespace, "server": api.url}.items()
    create = f"create it (kubectl create namespace {namespace}), or give another one with -n"
    assert error == f"hotpool operator: there is no namespace {namespace}: {create}"


@pytest.mark.parametrize(
    ("words", "environment", "code", "line"),
    [
        (("--listen", "8080"), {}, 2, "--listen: must be ADDRESS:PORT, for example 127.0.0.1:8080 or [::]:8080"),
        ((), {"HOTPOOL_LISTEN": ":80"}, 2, "HOTPOOL_LISTEN: must be ADDRESS:PORT, for example 127.0.0.1:8080"),
        ((), {"HOTPOOL_LOG_LEVEL": "loud"}, 2, "HOTPOOL_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or"),
        (("--redis-prefix", "a/b"), {}, 2, "--redis-prefix: String should match pattern"),
        (
            ("--endpoints-denied-cidrs", "10.0.0.0/8,10.0.0.0/33"),
            {},
            2,
            "--endpoints-denied-cidrs: '10.0.0.0/33' is no CIDR",
        ),
        ((), {"HOTPOOL_ENDPOINTS_ALLOWED_CIDRS": "ten"}, 2, "HOTPOOL_ENDPOINTS_ALLOWED_CIDRS: 'ten' is no CIDR: "),
        (("--kubeconfig", "/no/such/file"), {}, 3, "no kubeconfig: /no/such/file does not exist; see --kubeconfig"),
        (
            (),
            {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBECONFIG": "/no/such:/neither"},
            3,
            "no kubeconfig: /no/such:/neither does not exist; see --kubeconfig; in this pod, ",
        ),
    ],
)
async def test_bad_input_is_an_error_of_one_line(
    words: tuple[str, ...], environment: dict[str, str], code: int, line: str
) -> None:
    exit_code, output = await run_operator(*words, **environment)
    assert exit_code == code
    assert output.startswith(f"hotpool operator: {line}")
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("allowed", [True, False])
async def test_loopback_endpoints_are_announced_at_each_start(
    definitions: Definitions, tmp_path: Path, *, allowed: bool
) -> None:
    api = ReadApi()
    api.url = definitions.url
    options = ("--kubeconfig", str(api.kubeconfig(tmp_path)), "--listen", f"127.0.0.1:{free_port()}")
    code, output = await run_operator(*options, *(["--allow-loopback-endpoints"] if allowed else []))
    assert code == 1
    text = "loopback addresses are endpoints (--allow-loopback-endpoints): for trials on one machine only"
    assert (text in output) == allowed


async def test_windows_is_an_error_of_one_line() -> None:
    script = "import sys; sys.platform = 'win32'; sys.argv = ['hotpool', 'operator', '-n', 'fleet']\n"
    script += "from hotpool.__main__ import main; main()\n"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stderr=asyncio.subprocess.PIPE)
    _, errors = await child.communicate()
    assert child.returncode == 2
    assert errors.decode() == "hotpool operator does not run on Windows; the other commands work here.\n"


async def test_a_port_in_use_is_an_error_of_one_line(definitions: Definitions, tmp_path: Path) -> None:
    api = ReadApi()
    api.url = definitions.url
    taken = definitions.url.removeprefix("http://")
    code, output = await run_operator("--kubeconfig", str(api.kubeconfig(tmp_path)), "--listen", taken)
    assert code == 1
    assert output.startswith(f"hotpool operator: cannot serve /metrics and /healthz on {taken}: the port is taken by ")
    assert len(output.splitlines()) == 1


async def run_operator(*words: str, namespace: str | None = "fleet", **environment: str) -> tuple[int | None, str]:
    """Run the real program; return its exit code and output. `namespace` None: without -n."""
    fleet = ("-n", namespace) if namespace else ()
    child = await asyncio.create_subprocess_exec(
        *(PROGRAM, "operator", *fleet, *words),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    return child.returncode, output.decode()
