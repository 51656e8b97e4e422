"""The agent and faulty responses (requirement B9): malformed ones do not end it, and none causes a request storm."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.agent_run import agent_running, eventually
from tests.support.fake_api import Fault, fake_api, is_watch
from tests.support.faulty_link import SHORT_TIMES, FaultyLink, is_write, ready_types, report_versions
from tests.support.http_services import HttpServices

from localfleet.relay import Relay

STORM_SECONDS = 2.0
MOST_ATTEMPTS = 8
"""Maximum for one part of the agent in that time: pauses of 0.3 s, 0.6 s, 1 s, 1 s …, each at most halved by jitter,
allow six attempts. The others are attempts that succeeded before."""
MOST_REQUESTS = 2 * MOST_ATTEMPTS
"""An attempt has two requests: a claim and a write, a write and its repetition, or a list and a watch."""


def response(code: int, body: Any, only: Callable[[web.Request], bool] = lambda _: True) -> Fault:
    text = body if isinstance(body, str) else json.dumps(body)
    return Fault(only, code=code, body=text, times=10**6)


def sender(request: tuple[str, str]) -> str:
    """Return the part of the agent that sent the request."""
    method, path = request
    if "/leases" in path:
        return "heartbeat"
    return "watch" if method == "GET" else "report"


GONE = {"message": 'nodecapabilities "n1" not found', "details": {"name": "n1", "kind": "nodecapabilities"}}
STALE = {"message": "status: stale report: a later one is stored"}
MALFORMED = [
    *("", "[]", "null", "5", '"text"', "{}", "<html>", "\x00", '{"metadata": 5}', '{"items": 5}'),
    *('{"items": [5], "metadata": {}}', '{"items": [{"status": 5, "spec": 5}], "metadata": {"resourceVersion": "5"}}'),
    '{"items": [{"spec": {"services": 5}}], "metadata": {"resourceVersion": "5"}}',
    '{"items": [{"spec": {"services": [5, {}, {"id": []}]}}], "metadata": {"resourceVersion": "5"}}',
    '{"status": {"report": {"epoch": "x", "sequence": [], "intervalSeconds": {}}}}',
    '{"items": [{"status": {"report": {"epoch": {}}}}], "metadata": {"resourceVersion": "1"}}',
    *("[" * 100_000, '{"items": [' + "[" * 100_000, '{"metadata": {"resourceVersion": ' + "9" * 5000 + "}}"),
    *('{"type": "ERROR", "object": {"code": {}}}\n', '{"type": "ERROR", "object": {"code": "x", "details": 5}}\n'),
    *('{"type": "ADDED"}\n', '{"type": "MODIFIED", "object": 5}\n', "5\n{}\n[]\n", "x" * 500000),
]


async def test_malformed_responses_do_not_end_the_agent(
    link: FaultyLink, observed: HttpServices, tmp_path: Path
) -> None:
    """Such responses may come from a proxy in front of the API server. None may count as an accepted report."""
    async with agent_running(tmp_path, link.kubeconfig, observed.catalogue(), **SHORT_TIMES) as it:
        await link.api.until(lambda: ready_types(link.api) == observed.up, 30)
        for text in MALFORMED:
            fault = response(200, text)
            link.api.faults.append(fault)
            observed.up["asr"] = not observed.up["asr"]
            link.api.end_watches()
            await eventually(lambda: not it.alive() or it.agent.reporter.problem, 30)
            await eventually(lambda: not it.alive() or it.agent.watch.problem or link.api.watches, 30)
            fault.times = 0
            await link.api.until(lambda: ready_types(link.api) == observed.up, 30)
        await link.api.until(lambda: link.api.watches == 1, 30)
        assert it.alive()
        assert report_versions(link.api) == sorted(set(report_versions(link.api)))
        await it.shut_down()


@pytest.mark.parametrize(
    "fault",
    [
        response(404, {"message": "no", "details": "none"}),
        response(422, "[" * 100_000),
        replace(response(500, "x" * 500_000), headers={"Content-Type": "text/html; charset=hex"}),
    ],
    ids=["details", "deep", "charset"],
)
async def test_a_malformed_error_does_not_end_the_agent(
    link: FaultyLink, observed: HttpServices, tmp_path: Path, fault: Fault
) -> None:
    async with agent_running(tmp_path, link.kubeconfig, observed.catalogue(), **SHORT_TIMES) as it:
        await link.api.until(lambda: ready_types(link.api) == observed.up, 30)
        link.api.faults.append(fault)
        observed.up["asr"] = False
        link.api.end_watches()
        await eventually(lambda: not it.alive() or (it.agent.reporter.problem and it.agent.watch.problem), 30)
        assert "internal" not in f"{it.agent.reporter.problem} {it.agent.watch.problem}"
        fault.times = 0
        await link.api.until(lambda: ready_types(link.api) == observed.up, 30)
        await it.shut_down()


@pytest.mark.parametrize(
    "fault",
    [
        response(404, GONE, is_write),
        response(422, STALE, is_write),
        response(429, "busy"),
        response(401, "who?"),
        response(302, "redirect"),
        response(200, "{}"),
        response(200, "", is_watch),
        response(200, '{"type": "ERROR", "object": {"code": 410}}\n', is_watch),
        response(500, "", is_watch),
    ],
    ids=["gone", "stale", "busy", "denied", "redirect", "malformed", "short watch", "expired watch", "no watch"],
)
async def test_no_response_causes_a_request_storm(
    link: FaultyLink, observed: HttpServices, tmp_path: Path, fault: Fault
) -> None:
    settings = SHORT_TIMES | {"backoff_seconds": 0.3}
    async with agent_running(tmp_path, link.kubeconfig, observed.catalogue(), **settings) as it:
        await link.api.until(lambda: ready_types(link.api) == observed.up and link.api.watches == 1, 30)
        link.api.faults.append(fault)
        observed.up["asr"] = False
        link.api.end_watches()
        before = len(link.api.requests)
        await asyncio.wait([it.task], timeout=STORM_SECONDS)
        assert it.alive()
        requests = Counter(map(sender, link.api.requests[before:]))
        assert all(count <= MOST_REQUESTS for count in requests.values()), requests
        link.api.faults.clear()
        await link.api.until(lambda: ready_types(link.api) == observed.up and link.api.watches == 1, 30)
        await it.shut_down()


async def test_an_unreachable_server_causes_few_attempts(observed: HttpServices, tmp_path: Path) -> None:
    async with fake_api() as api:
        port = int(api.url.rpartition(":")[2])
    settings = SHORT_TIMES | {"backoff_seconds": 0.3}
    with Relay(port) as relay:
        api.url = f"http://127.0.0.1:{relay.port}"
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), observed.catalogue(), **settings) as it:
            await asyncio.wait([it.task], timeout=STORM_SECONDS)
            assert it.alive()
            # Two parts send requests: there is no heartbeat before the first report.
            assert 2 <= relay.accepted <= 2 * MOST_ATTEMPTS
            async with fake_api(port) as back:
                await back.until(lambda: ready_types(back) == observed.up, 30)
                await it.shut_down()
