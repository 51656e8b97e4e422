"""What `hotpool operator` says when it cannot work on what is installed (design, section 1)."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.services.read_api import ReadApi

from hotpool.api.meta import SCHEMA_REVISION, SCHEMA_REVISION_ANNOTATION
from localfleet.catalogue import free_port

PROGRAM = str(Path(sys.executable).with_name("hotpool"))
NAME = "nodecapabilities.hotpool.dev"


class Definitions:
    """An API server that serves definitions of one revision, or none."""

    def __init__(self) -> None:
        self.revision: int | None = None
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
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
    made, app = Definitions(), web.Application()
    app.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.mark.parametrize(
    ("revision", "found"),
    [
        (None, "is not installed"),
        (SCHEMA_REVISION - 1, f"has revision {SCHEMA_REVISION - 1}, {SCHEMA_REVISION} is needed"),
    ],
)
async def test_older_definitions_are_refused_with_the_commands_that_renew_them(
    definitions: Definitions, tmp_path: Path, revision: int | None, found: str
) -> None:
    definitions.revision = revision
    api = ReadApi()
    api.url = definitions.url
    words = ["operator", "-n", "fleet", "--kubeconfig", str(api.kubeconfig(tmp_path))]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *(PROGRAM, *words, "--listen", f"127.0.0.1:{free_port()}"), stdout=pipe, stderr=pipe
    )
    _, told = await child.communicate()
    assert child.returncode == 1
    assert f"{NAME.partition('.')[0]} {found}: kubectl apply --server-side -f crds/" in told.decode()
    way = "helm show crds CHART | kubectl apply --server-side --field-manager=helm --force-conflicts -f -"
    assert way in told.decode()
