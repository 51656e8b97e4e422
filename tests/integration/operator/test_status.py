"""`hotpool status` against an API server over real HTTP (requirement F2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.builders import condition, election_lease, node_object, pool_object, report, service
from tests.support.read_api import ReadApi, read_api

from hotpool.api.meta import timestamp
from hotpool.cli.program import app
from localfleet.ports import free_port

Run = Callable[..., Awaitable[Result]]


def ago(seconds: float) -> str:
    return timestamp(datetime.now(UTC) - timedelta(seconds=seconds))


@pytest.fixture
async def reads() -> AsyncIterator[ReadApi]:
    """Run an API server with a healthy fleet."""
    ready = {"observedGeneration": 1, "conditions": [condition()], "ready": "True"}
    async with read_api() as api:
        api.put(
            node_object("edge-1", report(service("w", "asr")), conditions=[condition()]),
            {**pool_object("asr"), "status": ready},
            election_lease(ago(0)),
        )
        yield api


@pytest.fixture
def status(reads: ReadApi, tmp_path: Path) -> Run:
    """Return a function that runs the command in this process, beside the server."""
    words = ("status", "--kubeconfig", str(reads.kubeconfig(tmp_path)))

    async def run(*more: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [*words, *more])

    return run


async def test_the_exit_code_says_whether_the_fleet_is_healthy(reads: ReadApi, status: Run) -> None:
    assert (await status()).exit_code == 0
    reads.put(pool_object("new"))
    result = await status()
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, "fleet: NOT healthy, 1 problem")


async def test_a_part_that_may_not_be_read_is_named_and_the_rest_is_shown(reads: ReadApi, status: Run) -> None:
    reads.refused = {"nodepools": 403, "leases": 403, "customresourcedefinitions": 403}
    result = await status()
    assert (result.exit_code, result.stderr) == (4, "")
    assert "nodes     1: 1 Live\n" in result.stdout
    assert "- not allowed to list nodepools" in result.stdout
    document = json.loads((await status("-o", "json")).stdout)
    assert (document["operator"], document["pools"], len(document["unreadable"])) == (None, None, 2)


async def test_the_revision_of_the_definitions_is_read_where_that_is_allowed(reads: ReadApi, status: Run) -> None:
    reads.refused = {}
    reads.put(election_lease(ago(0), schema_revision="3"))
    for plural in ("nodecapabilities", "nodepools", "nodepoolslices"):
        metadata = {"name": f"{plural}.hotpool.dev", "annotations": {"hotpool.dev/schema-revision": "3"}}
        reads.put({"kind": "CustomResourceDefinition", "metadata": metadata})
    document = json.loads((await status("-o", "json")).stdout)
    assert [item["message"] for item in document["problems"]] == ["nodepoolgenerators: not installed"]


async def test_a_leader_whose_clock_differs_is_recognized_by_its_next_renewal(reads: ReadApi, status: Run) -> None:
    reads.put(election_lease(ago(3600)))

    async def renew() -> None:
        while True:
            await asyncio.sleep(0.1)
            reads.put(election_lease(ago(3600)))

    renewing = asyncio.create_task(renew())
    try:
        assert (await status()).exit_code == 0
    finally:
        renewing.cancel()


async def test_redis_that_does_not_respond_is_a_problem(status: Run) -> None:
    result = await status("--redis", f"redis://127.0.0.1:{free_port()}", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["problems"][0]["subject"]) == (1, "redis")


async def test_a_namespace_without_a_fleet_is_named(reads: ReadApi, status: Run) -> None:
    for stored in reads.objects.values():
        stored.clear()
    result = await status()
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr.startswith("hotpool status: no fleet in namespace fleet: ")
