"""`hotpool why`, `diff`, `top` and `pick` against an API server over real HTTP (requirements D8, F2, F3, F5)."""

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner
from tests.support.builders import (
    condition,
    election_lease,
    generator_object,
    node_object,
    pool_object,
    report,
    requires,
    service,
    slice_object,
)
from tests.support.old_redis import VERSION, old_redis
from tests.support.read_api import ReadApi, maintainer_rules, read_api, viewer_rules

from hotpool import __version__
from hotpool.api.meta import LEASE_LABEL, LEASE_PREFIX, timestamp
from hotpool.cli.node_events import of_event, of_redis
from hotpool.cli.program import app
from hotpool.lookup import Transition
from localfleet.ports import free_port

WIDTH: Final = 80
COMMANDS: Final = ("status", "why", "top", "events", "diff", "pick", "enroll")
LONG_NODE: Final = "edge-" + "x" * 190
SPEECH: Final = requires("asr", "nmt", "tts", languagePairs={"allOf": ["zh-en"]})


def ago(seconds: float) -> str:
    return timestamp(datetime.now(UTC) - timedelta(seconds=seconds))


def translator(**states: str) -> dict[str, Any]:
    """Return the report of a node with three services. `states`: states of those that do not run."""
    rules = [{"kind": "any_to_any", "languages": ["zh", "en"]}]
    services = [
        service("whisper", "asr", languages=["zh", "en"], since=ago(200), restarts=2),
        service("m2m", "nmt", rules=rules, since=ago(200)),
        service("piper", "tts", languages=["en"], since=ago(41)),
    ]
    content = report(*({**item, "state": states.get(item["id"], "Running")} for item in services))
    return {**content, "time": ago(30)}


def fleet(api: ReadApi) -> None:
    """Add two pools, a generator, and nodes in every state."""
    live, offline = (
        [condition(lastTransitionTime=ago(7200))],
        [condition(status="Unknown", reason="Offline", lastTransitionTime=ago(300))],
    )
    flapping = report(service("gemma", "llm"))
    flapping["capabilities"] = [{"type": "llm", "ready": False, "reason": "Flapping", "services": []}]
    api.put(
        node_object("edge-1", translator(), conditions=live),
        node_object("edge-2", translator(piper="Stopped"), conditions=live),
        node_object("edge-3", {**flapping, "time": ago(5)}, conditions=live),
        node_object("edge-4", translator(), conditions=offline),
        node_object(LONG_NODE, None),
        pool_object("zh-en", requires=SPEECH),
        pool_object("asr", requires=requires("asr"), minMembers=2),
        slice_object("zh-en", 0, members=[{"node": "edge-1", "state": "Ready", "since": ago(20)}]),
        slice_object("asr", 0, members=[{"node": n, "state": "Ready", "since": ago(99)} for n in ("edge-1", "edge-2")]),
        generator_object("speech"),
        *(lease(f"edge-{index}", ago(7)) for index in range(1, 5)),
        election_lease(ago(0)),
        event("edge-1", "Live", "the agent reports and beats", 7200),
        event("edge-1", "Offline", "no heartbeat for 4 intervals", 7300),
        event("edge-2", "Suspect", "not of edge-1", 10),
    )


def lease(node: str, renewed: str) -> dict[str, Any]:
    metadata = {"name": f"{LEASE_PREFIX}{node}", "labels": {LEASE_LABEL: "true"}}
    return {"kind": "Lease", "metadata": metadata, "spec": {"renewTime": renewed, "holderIdentity": "i/1"}}


def event(node: str, reason: str, note: str, seconds: float) -> dict[str, Any]:
    return {
        "kind": "Event",
        "metadata": {"name": f"{node}.{reason}"},
        "regarding": {"kind": "NodeCapability", "name": node},
        "eventTime": ago(seconds),
        "reason": reason,
        "note": note,
    }


class Result:
    """Exit code and output of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "\x1b" not in out + err, "colours are for terminals"

    @property
    def lines(self) -> list[str]:
        """Lines of standard output, checked to fit 80 columns."""
        lines = self.out.splitlines()
        assert max(map(len, lines), default=0) <= WIDTH, self.out
        return lines

    @property
    def json(self) -> Any:
        """Parsed JSON of standard output."""
        return json.loads(self.out)


Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def reads() -> AsyncIterator[ReadApi]:
    """Run an API server that can be read."""
    async with read_api() as api:
        fleet(api)
        yield api


@pytest.fixture
def environment(reads: ReadApi, tmp_path: Path) -> dict[str, str]:
    """Return the environment variables for that API server."""
    return {"KUBECONFIG": str(reads.kubeconfig(tmp_path)), "COLUMNS": str(WIDTH)}


@pytest.fixture
def hotpool(environment: dict[str, str]) -> Run:
    """Return a function that runs `hotpool` in this process, beside the server."""

    async def run(*words: str, text: str | None = None) -> Result:
        kubeconfig = () if {"--kubeconfig", "--help"} & {*words} else ("--kubeconfig", environment["KUBECONFIG"])
        runner = CliRunner(env=environment)
        result = await asyncio.to_thread(runner.invoke, app, [*words, *kubeconfig], input=text)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Result(result.exit_code, result.stdout, result.stderr)

    return run


async def test_why_prints_the_verdict_then_each_requirement_then_the_remedies(hotpool: Run) -> None:
    result = await hotpool("why", "edge-2", "zh-en")
    assert result.code == 0
    assert result.lines[0] == "edge-2 in zh-en: out: TypeNotReady (type tts ready: Stopped: piper is Stopped)"
    assert any(re.fullmatch(r"yes +type asr ready +ready: whisper +3m\d+s", line) for line in result.lines)
    assert any(re.fullmatch(r"NO +type tts ready +Stopped: piper is Stopped +4\ds", line) for line in result.lines)
    assert "Decided by TypeNotReady: type tts ready." in result.lines
    assert "- start service piper (tts) on edge-2: hotpool-agent start piper" in result.lines


async def test_why_of_a_member_shows_since_when(hotpool: Run) -> None:
    result = await hotpool("why", "edge-1", "zh-en")
    assert re.fullmatch(r"edge-1 in zh-en: member Ready, since 2\ds", result.lines[0])
    assert not any(line.startswith("NO") for line in result.lines)


async def test_why_in_json_has_the_documented_fields(hotpool: Run) -> None:
    document = (await hotpool("why", "edge-2", "zh-en", "-o", "json")).json
    assert (document["node"], document["pool"], document["membership"]) == ("edge-2", "zh-en", "Out")
    assert (document["state"], document["since"]) == (None, None)
    assert document["verdict"] == {"state": None, "criterion": "TypeNotReady"}
    assert [item["required"] for item in document["requirements"] if item["decides"]] == ["type tts ready"]
    keys = {"criterion", "required", "met", "decides", "observed", "since", "remedies"}
    assert all(item.keys() == keys for item in document["requirements"])
    assert document["remarks"] == []


async def test_why_of_a_node_shows_the_endpoint_of_each_ready_service_or_why_it_has_none(
    hotpool: Run, reads: ReadApi
) -> None:
    endpoint = {"addresses": [], "port": 6007, "appProtocol": "http"}
    content = report(
        service("whisper", "asr", endpoint=endpoint),
        service("m2m", "nmt", endpoint={**endpoint, "port": 5008}),
        service("piper", "tts", endpoint=None, endpointReason="LoopbackOnly"),
        addresses=[{"ip": "10.0.0.1", "source": "Route"}],
    )
    text = "m2m at 10.0.0.1:5008 is claimed by edge-2, too, with an equal right"
    stored = [condition(), condition("AddressConflict", reason="ClaimedByOthers", message=text)]
    reads.put(node_object("edge-1", content, conditions=stored))
    result = await hotpool("why", "--node", "edge-1")
    at = next(number for number, line in enumerate(result.lines) if line.startswith("SERVICE"))
    assert [line.split() for line in result.lines[at : at + 5]] == [
        ["SERVICE", "TYPE", "ENDPOINT"],
        ["m2m", "nmt", *["10.0.0.1", "is", "claimed", "by", "edge-2,", "too,", "with", "an", "equal", "right"]],
        ["piper", "tts", "LoopbackOnly"],
        ["whisper", "asr", "10.0.0.1:6007"],
        [],
    ]
    reads.put(pool_object("nmt", requires=requires("nmt", endpoint="Required")))
    lines = (await hotpool("why", "edge-1", "nmt")).lines
    assert lines[0].startswith("edge-1 in nmt: out: NoEndpoint (")
    assert "Decided by NoEndpoint: an endpoint of type nmt." in lines
    assert "- if 10.0.0.1:5008 is m2m of edge-1, set spec.addresses:" in " ".join(lines)


async def test_why_of_a_node_shows_the_limits_of_its_services_and_types(hotpool: Run, reads: ReadApi) -> None:
    content = report(service("whisper", "asr", maxConcurrent=8), service("m2m", "nmt"))
    limits = [{"type": "asr", "maxConcurrent": 4}, {"type": "tts", "maxConcurrent": 2}]
    reads.put(node_object("edge-1", content, limits=limits, conditions=[condition()]))
    result = await hotpool("why", "--node", "edge-1")
    at = next(number for number, line in enumerate(result.lines) if line.startswith("SERVICE"))
    assert [line.split()[-1] for line in result.lines[at : at + 3]] == ["LIMIT", "none", "8"]
    assert "Limits of types (spec.limits): asr 4, tts 2 (no ready service)." in result.lines
    document = (await hotpool("why", "--node", "edge-1", "-o", "json")).json
    assert [item["maxConcurrent"] for item in document["endpoints"]] == [None, 8]
    assert document["limits"] == limits


async def test_why_of_a_pool_counts_reasons_and_shows_the_nearest_misses(hotpool: Run) -> None:
    result = await hotpool("why", "--pool", "zh-en", "--limit", "3")
    assert result.lines[0] == "zh-en: 1 member (1 Ready), 4 out"
    counts = dict(line.split() for line in result.lines[3:6])
    assert counts == {"TypeNotReady": "2", "NotReported": "1", "Offline": "1"}
    misses = [line.split()[:2] for line in result.lines if line.startswith("edge-")]
    assert misses == [["edge-4", "1"], ["edge-2", "2"], ["edge-3", "4"]]
    assert "… and 1 more: --limit" in result.lines
    document = (await hotpool("why", "--pool", "zh-en", "-o", "json")).json
    assert document["members"] == {"Ready": 1, "Suspect": 0, "Draining": 0}
    assert (document["out"], len(document["nearestMisses"])) == (4, 4)
    assert [item["required"] for item in document["nearestMisses"][0]["failed"]] == ["a heartbeat"]


async def test_why_of_a_node_shows_every_pool_and_its_own_events_newest_first(hotpool: Run) -> None:
    result = await hotpool("why", "--node", "edge-1")
    assert result.lines[0] == "edge-1: Live, since 120m; 3/3 services run, in 2 of 2 pools"
    assert [line.split()[0] for line in result.lines[3:5]] == ["asr", "zh-en"]
    assert [line.split()[1] for line in result.lines[7:]] == ["Live", "Offline"]
    document = (await hotpool("why", "--node", "edge-1", "-o", "json")).json
    assert [item["reason"] for item in document["transitions"]] == ["Live", "Offline"]
    assert {item["pool"]: item["state"] for item in document["pools"]} == {"asr": "Ready", "zh-en": "Ready"}


async def test_why_of_a_node_continues_if_redis_fails(hotpool: Run) -> None:
    result = await hotpool("why", "--node", "edge-1", "--redis", f"redis://127.0.0.1:{free_port()}")
    assert (result.code, len(result.err.splitlines())) == (0, 1)
    assert result.err.startswith("warning: nothing is read from Redis")
    assert result.lines[0].startswith("edge-1: Live")


def test_an_entry_of_redis_is_one_sentence() -> None:
    changed = Transition("t1", "Live", "Suspect", gained=("asr",), lost={"tts": "Stopped"})
    assert of_redis(changed).message == "Live -> Suspect; can serve asr; can no longer serve tts (Stopped)"
    assert (of_redis(Transition("t1", lost={"tts": "Failed"})).reason) == "TypesChanged"
    assert of_redis(Transition("t1", None, "Live")).message == "new -> Live"


def test_an_event_series_has_time_and_count_of_its_last_event() -> None:
    series = {**event("n", "Live", "x", 60), "series": {"count": 7, "lastObservedTime": "2026-11-24T10:00:00Z"}}
    assert (of_event(series).time, of_event(series).count) == ("2026-11-24T10:00:00Z", 7)
    old = {**event("n", "Live", "x", 60), "eventTime": None, "deprecatedLastTimestamp": "t", "deprecatedCount": 3}
    assert (of_event(old).time, of_event(old).count) == ("t", 3)


async def test_why_of_a_dry_run_shows_the_nodes_that_would_join(hotpool: Run, reads: ReadApi) -> None:
    reads.put(pool_object("dry", requires=SPEECH, mode="DryRun"))
    assert (await hotpool("why", "edge-1", "dry")).lines[0] == "edge-1 in dry: would be member Ready (DryRun)"
    assert "Mode DryRun: 1 node would be members." in (await hotpool("why", "--pool", "dry")).lines


async def test_why_of_a_pool_says_why_it_has_no_service(hotpool: Run, reads: ReadApi) -> None:
    message = "Service served exists and is not of this pool"
    stored = {**condition("ServiceNameTaken", "True", "NotOurs"), "message": message}
    reads.put({**pool_object("served", requires=SPEECH), "status": {"conditions": [stored]}})
    assert f"No Service: {message}." in (await hotpool("why", "--pool", "served")).lines
    assert json.loads((await hotpool("why", "--pool", "served", "-o", "json")).out)["missingService"] == message


@pytest.mark.parametrize(
    ("stored", "reason", "expected"),
    [
        (
            {"type": "MassSilence", "reason": "BrakeHolds"},
            "Offline",
            "retained by the brake as Suspect, in the pool since 20s",
        ),
        (
            {"type": "Other", "reason": "Other"},
            "Offline",
            "member Suspect, since 20s, about to be out: Offline",
        ),
        ({"type": "Other", "reason": "Other"}, "Suspect", "member Suspect, since 20s"),
    ],
)
async def test_why_distinguishes_the_brake_from_a_late_operator(
    hotpool: Run, reads: ReadApi, stored: dict[str, Any], reason: str, expected: str
) -> None:
    conditions = [{**condition(stored["type"], "True", stored["reason"]), "message": "5 of 6 are silent"}]
    reads.put(
        {**pool_object("asr", requires=requires("asr")), "status": {"conditions": conditions}},
        node_object("edge-4", translator(), conditions=[condition(status="Unknown", reason=reason)]),
        slice_object("asr", 0, members=[{"node": "edge-4", "state": "Suspect", "since": ago(20)}]),
    )
    result = await hotpool("why", "edge-4", "asr")
    assert re.sub(r"2\ds", "20s", result.lines[0]).startswith(f"edge-4 in asr: {expected}")
    assert ("5 of 6 are silent" in result.out) == ("brake" in expected)


async def test_events_of_a_node_are_merged_from_events_and_log_and_the_first_line_has_the_reach_of_each(
    hotpool: Run, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = [
        {"event": "left", "pool": "asr", "node": "edge-1", "former": "Ready", "reason": "Offline", "since": ago(9000)},
        {"event": "joined", "pool": "asr", "node": "edge-2", "state": "Ready"},
        {"event": "leading", "term": 2},
    ]
    log = tmp_path / "operator.log"
    log.write_text("".join(json.dumps({**item, "timestamp": ago(7250)}) + "\n" for item in lines), encoding="utf-8")
    result = await hotpool("events", "edge-1", "--log", str(log))
    assert result.code == 0
    head = " ".join(result.lines[: result.lines.index("")])
    assert re.match(r"Events: back to [-\d]+ [:\d]+ \(kept 1h by default\); log: back to ", head)
    assert head.endswith("Redis: not read (--redis)")
    rows = [line.split()[2:5] for line in result.lines if re.match(r"\d\d-\d\d ", line)]
    assert rows == [
        ["Event", "node/edge-1", "Offline"],
        ["Log", "pool/asr", "left"],
        ["Event", "node/edge-1", "Live"],
    ]
    recent = await hotpool("events", "edge-1", "--since", "2h1m", "-o", "json")
    assert [item["reason"] for item in recent.json["entries"]] == ["Live"]
    keys = {"time", "source", "kind", "name", "reason", "message", "count"}
    assert recent.json["entries"][0].keys() == keys
    assert [source["source"] for source in recent.json["sources"]] == ["Event"]


async def test_events_says_when_nothing_happened_and_when_a_name_is_unknown(hotpool: Run) -> None:
    result = await hotpool("events", "asr", "--since", "30m")
    assert (result.code, result.lines[-1].split()[0]) == (0, "Nothing")
    unknown = await hotpool("events", "edge-11")
    assert (unknown.code, unknown.out) == (5, "")
    assert "no node or pool edge-11 in namespace fleet, and no source names it; similar: edge-1" in unknown.err
    for wrong in ("12", "h", "1w", "-1h"):
        assert (await hotpool("events", "--since", wrong)).code == 2


async def test_top_shows_nodes_and_pools(hotpool: Run) -> None:
    result = await hotpool("top")
    assert result.code == 0
    nodes = {line.split()[0]: line.split()[1:] for line in result.lines if line.startswith("edge-")}
    assert re.fullmatch(r"[78]s", nodes["edge-1"][0])
    assert nodes["edge-1"][1:] == ["Live", "2", "3/3", "2"]
    assert nodes["edge-3"][-1] == "llm"
    assert nodes["edge-4"][1:] == ["Offline", "0", "3/3", "2"]
    pools = {line.split()[0]: line.split()[1:] for line in result.lines if line.startswith(("asr", "zh-en"))}
    new = "NotObserved"
    assert pools == {"asr": ["2", "0", "0", "2", "0", new], "zh-en": ["1", "0", "0", "1", "1", new]}


async def test_the_first_line_of_top_and_why_says_when_no_operator_leads(hotpool: Run, reads: ReadApi) -> None:
    reads.put(election_lease(ago(40), holder=None))
    for words in (("top",), ("why", "edge-2", "zh-en"), ("why", "--pool", "zh-en"), ("why", "--node", "edge-1")):
        result = await hotpool(*words)
        assert result.code == 0
        assert re.match(r"WARNING: no operator leads: the last one ended 4\ds ago\.", result.lines[0])
        assert (await hotpool(*words, "-o", "json")).json["warning"].startswith("WARNING: no operator leads")
    reads.put(election_lease(ago(0)))
    assert (await hotpool("top", "-o", "json")).json["warning"] is None
    reads.refused = {"leases": 403}
    assert (await hotpool("top", "pools")).lines[0].startswith("WARNING: this account may not list Leases, so")


async def test_top_shows_a_summary_and_the_worst_first_with_the_reason(hotpool: Run, reads: ReadApi) -> None:
    few = condition(status="False", reason="TooFewMembers")
    silent = condition("MassSilence", "True", "BrakeHolds")
    reads.put(
        {**pool_object("asr", requires=requires("asr")), "status": {"conditions": [condition()], "ready": "True"}},
        {**pool_object("zh-en", requires=SPEECH), "status": {"conditions": [few, silent], "ready": "False"}},
        pool_object("trial", requires=SPEECH, mode="DryRun"),
        node_object("edge-0", translator(), conditions=[condition(status="False", reason="Draining")]),
    )
    lines = (await hotpool("top")).lines
    assert lines[0] == "6 nodes: 3 Live, 1 Draining, 1 Offline, 1 Unseen, 1 flapping; 3 pools: 1 ready"
    assert [line.split()[0] for line in lines if line.startswith("edge-")][1:] == [
        "edge-4",
        "edge-0",
        "edge-3",
        "edge-1",
        "edge-2",
    ]
    notes = [line.split()[6:] for line in lines if line.startswith(("asr", "zh-en", "trial"))]
    assert notes == [["MassSilence,", "TooFewMembers"], ["DryRun"], []]


async def test_top_sorts_and_prints_json(hotpool: Run) -> None:
    result = await hotpool("top", "nodes", "--sort-by", "flaps", "-o", "json")
    assert [item["name"] for item in result.json["nodes"]][:2] == ["edge-3", "edge-1"]
    assert "pools" not in result.json
    keys = {
        "name",
        "lastSeen",
        "lastSeenSeconds",
        "state",
        "pools",
        "servicesRunning",
        "services",
        "restarts",
        "flapping",
        "ejected",
    }
    assert all(item.keys() == keys for item in result.json["nodes"])
    result = await hotpool("top", "pools", "--sort-by", "members", "-o", "json")
    assert [(item["name"], item["joinedLastMinute"]) for item in result.json["pools"]] == [("asr", 0), ("zh-en", 1)]


@pytest.mark.parametrize(
    "words",
    [
        ("top", "--sort-by", "name"),
        ("top", "nodes", "--sort-by", "members"),
        ("top", "--watch"),
        ("why",),
        ("why", "edge-1", "zh-en", "--pool", "zh-en"),
        ("why", "--pool", "zh-en", "-f", "x.yaml"),
        ("diff",),
    ],
)
async def test_wrong_usage_prints_an_error_and_ends_with_2(hotpool: Run, words: tuple[str, ...]) -> None:
    result = await hotpool(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[-1].startswith("Error: ")
    assert "Invalid value" not in result.err


DIFF: Final = """
apiVersion: hotpool.dev/v1alpha1
kind: NodePool
metadata: {name: asr}
spec: {requires: {types: [{type: tts}]}, minMembers: 2}
---
apiVersion: v1
kind: List
items:
- {apiVersion: hotpool.dev/v1alpha1, kind: NodePoolGenerator, metadata: {name: more}, spec: {rule: {languagePairs: {}}}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: else}}
"""


async def test_diff_shows_the_nodes_that_would_join_and_leave(hotpool: Run, tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text(DIFF)
    result = await hotpool("diff", "-f", str(path))
    assert result.code == 1
    assert result.lines[0] == "nodepool/asr (changed): 0 would join, 1 leave, 2 -> 1 member"
    assert result.lines[1:3] == ["  Ready: True -> False", "  -  edge-2  TypeNotReady: type tts ready"]
    assert result.lines[3] == "nodepoolgenerator/more (new): 1 pool created, 0 changed, 0 removed"
    assert re.fullmatch(r"  \+  more-zh-en-[0-9a-f]{8}  1 member", result.lines[4])
    assert result.err.startswith("ignored: v1 ConfigMap else")


async def test_diff_of_what_is_applied_ends_with_0(hotpool: Run, reads: ReadApi) -> None:
    stored = yaml.safe_dump_all([reads.objects["nodepools"]["asr"], reads.objects["nodepools"]["zh-en"]])
    result = await hotpool("diff", "-f", "-", "-o", "json", text=stored)
    assert (result.code, result.json["differs"], len(result.json["pools"])) == (0, False, 2)


_HEAD: Final = "apiVersion: hotpool.dev/v1alpha1\nkind: NodePool\nmetadata: {name: p}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_HEAD.replace("{name: p}", "{}"), "-: NodePool: metadata.name is missing"),
        ("a: [", "-: while parsing"),
        ("just words", "-: not a Kubernetes object"),
        ("kind: NodePool", "-: not a Kubernetes object: apiVersion None, kind NodePool"),
        ("", "no manifest"),
        (
            _HEAD.replace("NodePool", "NodePol"),
            "-: NodePol p: the API server does not serve hotpool.dev/v1alpha1 NodePol; similar: NodePool",
        ),
        (
            _HEAD.replace("v1alpha1", "v2"),
            "-: NodePool p: the API server does not serve hotpool.dev/v2 NodePool; this program knows hotpool.dev/v1",
        ),
        (
            _HEAD.replace("hotpool.dev", "hotpol.dev"),
            "-: NodePool p: the API server does not serve hotpol.dev/v1alpha1 NodePool; similar: hotpool.dev",
        ),
    ],
)
@pytest.mark.parametrize("words", [("diff",), ("why",)])
async def test_a_manifest_that_is_invalid_or_not_served_ends_with_2(
    hotpool: Run, words: tuple[str, ...], text: str, expected: str
) -> None:
    result = await hotpool(*words, "-f", "-", text=text)
    assert (result.code, result.out) == (2, "")
    assert expected in result.err


async def test_what_the_api_server_refuses_is_one_line_for_each_field_of_each_manifest(
    hotpool: Run, reads: ReadApi
) -> None:
    causes = [{"field": f"spec.{name}", "message": f"{name} is\nwrong"} for name in ("minMembers", "mode")]
    causes.append({"field": "<nil>", "message": "some validation rules were not checked"})
    reads.refusals = {
        "asr": {"code": 422, "message": "asr is invalid", "details": {"causes": causes}},
        "more": {"code": 403, "message": "a policy denied the request"},
    }
    for command in ("diff", "why"):
        result = await hotpool(command, "-f", "-", text=DIFF)
        assert (result.code, result.out) == (2, "")
        assert result.err.splitlines() == [
            f"hotpool {command}: -: NodePool asr: spec.minMembers: minMembers is wrong",
            "-: NodePool asr: spec.mode: mode is wrong",
            "-: NodePoolGenerator more: a policy denied the request",
        ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{requires: {type: []}}", "-: NodePool p: spec.requires.type: unknown field"),
        ("{min_members: 1}", "-: NodePool p: spec.min_members: unknown field"),
        ("{minMembers: many}", "-: NodePool p: spec.minMembers: Input should be a valid integer"),
    ],
)
async def test_without_the_right_to_write_the_models_check_a_manifest(
    hotpool: Run, reads: ReadApi, spec: str, expected: str
) -> None:
    reads.may_write = False
    result = await hotpool("diff", "-f", "-", text=f"{_HEAD}spec: {spec}")
    assert (result.code, result.out) == (2, "")
    assert expected in result.err


async def test_without_the_right_to_write_a_warning_says_that_the_server_did_not_check(
    hotpool: Run, reads: ReadApi
) -> None:
    reads.may_write = False
    warning = "not allowed to patch nodepools, create nodepoolgenerators in namespace fleet: the API server"
    result = await hotpool("diff", "-f", "-", text=DIFF)
    assert (result.code, " ".join(result.lines).startswith(f"WARNING: {warning}")) == (1, True)
    assert (await hotpool("diff", "-f", "-", "-o", "json", text=DIFF)).json["warning"].startswith(warning)
    assert "may refuse them" in (await hotpool("why", "-f", "-", "-o", "json", text=DIFF)).json["warning"]


async def test_a_folder_is_read_as_by_kubectl_and_each_file_names_its_error(hotpool: Run, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(DIFF)
    (tmp_path / "a.json").write_text(json.dumps(yaml.safe_load(_HEAD)))
    (tmp_path / "notes.txt").write_text("a: [")
    (tmp_path / "c.yml").mkdir()
    more = tmp_path / "d"
    more.mkdir()
    (more / "p.yml").write_text(_HEAD.replace("name: p", "name: q"))
    found = (await hotpool("diff", "-f", str(tmp_path), "-f", str(more), "-o", "json")).json
    assert [item["name"] for item in found["pools"]] == ["p", "asr", "q"]
    (tmp_path / "b.yaml").write_text("- 1")
    (tmp_path / "a.json").write_text("{}")
    result = await hotpool("diff", "-f", str(tmp_path))
    assert result.code == 2
    assert result.err.splitlines() == [
        f"hotpool diff: {tmp_path}/a.json: not a Kubernetes object: apiVersion None, kind None",
        f"{tmp_path}/b.yaml: not a Kubernetes object",
    ]
    assert "no manifest" in (await hotpool("diff", "-f", str(tmp_path / "c.yml"))).err


_NOBODY: Final = _HEAD + "spec: {requires: {types: [{type: asr, attributes: [{key: model, anyOf: [wisper]}]}]}}"


async def test_diff_says_why_a_pool_would_have_no_member(hotpool: Run, reads: ReadApi) -> None:
    result = await hotpool("diff", "-f", "-", text=_NOBODY)
    assert result.code == 1
    text = " ".join(" ".join(result.lines).split())
    assert "nodepool/p (new): 0 would join, 0 leave, 0 -> 0 members" in text
    assert "No member: 3 nodes Attribute, 1 node TypeNotReady, 1 node NotReported." in text
    (pool,) = (await hotpool("diff", "-f", "-", "-o", "json", text=_NOBODY)).json["pools"]
    assert {item["reason"]: item["count"] for item in pool["reasons"]} == {
        "Attribute": 3,
        "NotReported": 1,
        "TypeNotReady": 1,
    }
    explained = (await hotpool("why", "-f", "-", "-o", "json", text=_NOBODY)).json["pools"][0]
    assert (explained["joins"], explained["reasons"]) == ([], pool["reasons"])
    assert explained["undeclared"] == pool["undeclared"] != []
    dry = _HEAD + "spec: {mode: DryRun, requires: {types: [{type: asr}]}}"
    lines = " ".join((await hotpool("diff", "-f", "-", text=dry)).lines)
    assert "No member: mode DryRun keeps out 2 nodes that would join; " in lines
    reads.objects["nodecapabilities"].clear()
    assert "No member: there is no node." in (await hotpool("diff", "-f", "-", text=_NOBODY)).out


async def test_why_of_a_manifest_shows_who_would_join_and_why_the_others_would_not(hotpool: Run) -> None:
    result = await hotpool("why", "-f", "-", "--limit", "1", text=DIFF)
    assert (result.code, result.lines[0]) == (0, "asr as in -f: 1 node would join, 4 would not")
    at = result.lines.index("")
    assert [line.split() for line in result.lines[at + 1 : at + 3]] == [["WOULD", "JOIN", "STATE"], ["edge-1", "Ready"]]
    assert any(line.split() == ["TypeNotReady", "2"] for line in result.lines)
    (pool,) = (await hotpool("why", "-f", "-", "-o", "json", text=DIFF)).json["pools"]
    assert pool["joins"] == [{"node": "edge-1", "state": "Ready"}]
    assert len(pool["nearestMisses"]) == pool["out"] == 4
    generator = DIFF.replace("kind: NodePool\n", "kind: NodeCapability\n")
    result = await hotpool("why", "-f", "-", text=generator)
    assert (result.code, "for a generator see hotpool diff" in result.err) == (2, True)


async def test_why_of_one_name_explains_the_node_or_pool_that_has_it(hotpool: Run, reads: ReadApi) -> None:
    assert (await hotpool("why", "edge-1")).lines[0].startswith("edge-1: Live")
    assert (await hotpool("why", "zh-en")).lines[0].startswith("zh-en: 1 member")
    result = await hotpool("why", "zh-em")
    assert (result.code, result.err) == (5, "hotpool why: no node or pool zh-em in namespace fleet; similar: zh-en\n")
    assert "similar: edge-1" in (await hotpool("why", "edg-1")).err
    assert "there are 5 nodes and 2 pools" in (await hotpool("why", "qqqq")).err
    reads.put(pool_object("edge-1", requires=SPEECH))
    result = await hotpool("why", "edge-1")
    assert (result.code, result.out) == (2, "")
    assert result.err == "hotpool why: edge-1 is a node and a pool: choose by --node edge-1 or --pool edge-1\n"
    assert (await hotpool("why", "--pool", "edge-1")).code == 0


async def test_diff_of_a_missing_file_and_of_two_namespaces_is_wrong_usage(hotpool: Run) -> None:
    missing = await hotpool("diff", "-f", "/nowhere.yaml")
    assert missing.err == "hotpool diff: /nowhere.yaml cannot be read: No such file or directory; see -f\n"
    result = await hotpool("diff", "-f", "-", "-n", "here", text=_HEAD.replace("name: p", "name: p, namespace: there"))
    assert (result.code, "here, there" in result.err) == (2, True)


async def test_the_namespace_of_a_manifest_is_read(hotpool: Run, reads: ReadApi) -> None:
    await hotpool("diff", "-f", "-", text=_HEAD.replace("name: p", "name: p, namespace: there"))
    assert reads.namespaces == {"there"}


QUERIES: Final = [
    ("status",),
    ("why", "edge-2", "zh-en"),
    ("why", "--pool", "zh-en"),
    ("why", "--node", "edge-1"),
    ("top",),
    ("events", "edge-1"),
    ("diff", "-f", "-"),
    ("why", "-f", "-"),
]


async def test_all_commands_together_need_exactly_the_rights_of_the_viewer(hotpool: Run, reads: ReadApi) -> None:
    for words in [*QUERIES, ("why", "edge-x", "zh-en"), ("why", "edge-1", "zh-ex")]:
        await hotpool(*words, text=DIFF)
    definitions = {("get", "apiextensions.k8s.io", "customresourcedefinitions")}
    assert reads.requests - definitions == rights_of(viewer_rules("Role"))


def rights_of(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Return verb, group and resource of everything that the rules allow."""
    return {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


VERBS: Final = [
    ("stop", "edge-1", "whisper", "--timeout", "0"),
    ("start", "edge-1", "whisper", "--timeout", "0"),
    ("drain", "edge-1"),
    ("undrain", "edge-1"),
    ("exclude", "asr", "edge-1"),
    ("include", "asr", "edge-1"),
]
"""Commands that change the spec of a node or pool."""


async def test_all_verbs_together_need_exactly_the_rights_of_a_maintainer(hotpool: Run, reads: ReadApi) -> None:
    for words in [*VERBS, ("drain", "edge-x"), ("include", "speech/zh-en", "edge-1")]:
        await hotpool(*words)
    assert {(verb.lower(), *rest) for verb, *rest in reads.requests} == rights_of(maintainer_rules())


@pytest.mark.parametrize("words", VERBS)
async def test_a_refused_verb_is_one_line_with_the_role_to_ask_for(
    hotpool: Run, reads: ReadApi, words: tuple[str, ...]
) -> None:
    reads.refused = dict.fromkeys(reads.objects, 403)
    result = await hotpool(*words)
    assert (result.code, result.out, len(result.err.splitlines())) == (4, "", 1)
    assert "in namespace fleet: ask for Role hotpool-maintainer" in result.err


@pytest.mark.parametrize("words", QUERIES)
async def test_the_namespace_is_that_of_the_context_or_of_n(
    hotpool: Run, reads: ReadApi, words: tuple[str, ...]
) -> None:
    await hotpool(*words, text=DIFF)
    assert reads.namespaces == {"fleet"}
    reads.namespaces.clear()
    await hotpool(*words, "-n", "other", text=DIFF)
    assert reads.namespaces == {"other"}


@pytest.mark.parametrize("words", QUERIES)
@pytest.mark.parametrize(
    "refusal",
    [
        (403, 4, "not allowed to list "),
        (401, 4, "credentials"),
        (404, 6, "not installed"),
        (500, 3, "refused by the test"),
    ],
)
async def test_a_refused_request_is_one_line_with_verb_and_resource(
    hotpool: Run, reads: ReadApi, words: tuple[str, ...], refusal: tuple[int, int, str]
) -> None:
    status, code, expected = refusal
    reads.refused = dict.fromkeys(reads.objects, status)
    result = await hotpool(*words, text=DIFF)
    message = expected.replace("list", "get") if words[0] in {"why", "events"} and "-f" not in words else expected
    assert (result.code, result.out) == (code, "")
    assert len([line for line in result.err.splitlines() if not line.startswith("ignored")]) == 1
    assert message in result.err
    assert ("nodecapabilities" in result.err or "nodepools" in result.err) or status == 401


async def test_an_unreachable_server_is_one_line(hotpool: Run, reads: ReadApi, tmp_path: Path) -> None:
    reads.url = f"http://127.0.0.1:{free_port()}"
    path = reads.kubeconfig(tmp_path)
    result = await hotpool("top", "--kubeconfig", str(path))
    assert (result.code, result.out, len(result.err.splitlines())) == (3, "", 1)
    assert "cannot be reached" in result.err
    result = await hotpool("top", "--kubeconfig", str(tmp_path / "none"))
    assert (result.code, len(result.err.splitlines())) == (3, 1)
    assert "none does not exist; see --kubeconfig" in result.err
    result = await hotpool("top", "--context", "nowhere")
    assert (result.code, len(result.err.splitlines())) == (3, 1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("why", "edge-11", "zh-en"), "no nodecapability edge-11 in namespace fleet; similar: edge-1"),
        (("why", "edge-1", "zh-em"), "no nodepool zh-em in namespace fleet; similar: zh-en"),
        (("why", "--pool", "llama"), "no nodepool llama in namespace fleet; there are 2 others"),
        (("why", "--node", "edgy-2"), "no nodecapability edgy-2 in namespace fleet; similar: edge-2"),
    ],
)
async def test_the_error_for_a_missing_object_has_similar_names(
    hotpool: Run, words: tuple[str, ...], expected: str
) -> None:
    result = await hotpool(*words)
    assert (result.code, result.out) == (5, "")
    assert expected in result.err


async def test_a_generated_pool_is_found_by_generator_and_key(hotpool: Run, reads: ReadApi) -> None:
    made = {"by": "speech", "kind": "LanguagePair", "key": "zh-en"}
    reads.put(pool_object("speech-zh-en-0123abcd", requires=SPEECH, generated=made))
    assert (await hotpool("why", "edge-2", "speech/zh-en")).lines[0].startswith("edge-2 in speech-zh-en-0123abcd: out")
    assert (await hotpool("why", "--pool", "speech/zh-en")).code == 0
    for name, hint in (
        ("speech/zh-em", "nodepoolgenerator speech in namespace fleet has no pool for key zh-em; similar: zh-en"),
        ("other/zh-en", "has no pool for key zh-en; it has no pool, or there is no such generator"),
        ("speech-en-zh-0123abcd", "; nodepoolgenerator speech deletes a pool whose key no node offers: see"),
    ):
        result = await hotpool("why", "--pool", name)
        assert (result.code, hint in result.err) == (5, True), result.err


async def test_why_of_a_pool_names_what_no_service_declares(hotpool: Run, reads: ReadApi) -> None:
    reads.put(pool_object("typo", requires=requires("nmtt")))
    assert "No node has a service of type nmtt; similar: nmt." in (await hotpool("why", "--pool", "typo")).lines
    document = (await hotpool("why", "--pool", "typo", "-o", "json")).json
    assert document["undeclared"] == ["no node has a service of type nmtt; similar: nmt"]


async def test_an_undecodable_object_is_a_warning_or_an_error(hotpool: Run, reads: ReadApi) -> None:
    broken = node_object("edge-9", translator())
    broken["metadata"]["labels"] = {"site": 7}
    reads.put(broken)
    result = await hotpool("top", "nodes")
    assert (result.code, "nodecapabilities/edge-9 cannot be read" in result.err) == (0, True)
    result = await hotpool("why", "edge-9", "zh-en")
    assert (result.code, "cannot be read" in result.err) == (3, True)


@pytest.mark.parametrize("command", COMMANDS)
async def test_help_is_a_manual_page_with_exit_codes_and_an_example(hotpool: Run, command: str) -> None:
    result = await hotpool(command, "--help")
    assert result.code == 0
    assert any(line.startswith("  ") and f"hotpool {command} " in line for line in result.lines)
    codes = re.findall(r"^  (\d) +\S", result.out.partition("Exit codes:")[2], re.MULTILINE)
    assert codes[0] == "0"
    assert "2" in codes
    for option in ("--namespace", "--context", "--kubeconfig", "--output"):
        assert option in result.out


def test_help_of_the_operator_has_exit_codes_and_an_example() -> None:
    result = CliRunner().invoke(app, ["operator", "--help"], env={"COLUMNS": str(WIDTH)})
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= WIDTH
    assert re.findall(r"^  (\d) +\S", result.output.partition("Exit codes:")[2], re.MULTILINE) == list("0123")
    assert "\n  hotpool operator -n speech\n" in result.output


def test_the_program_prints_its_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"hotpool {__version__}\n")


async def test_pick_has_the_same_options_and_reports_that_redis_is_unreachable(hotpool: Run) -> None:
    result = await hotpool("pick", "zh-en", "--redis", f"redis://127.0.0.1:{free_port()}", "-n", "x", "-o", "json")
    assert (result.code, result.out, len(result.err.splitlines())) == (3, "", 1)


async def test_an_empty_namespace_is_named_with_the_options_that_choose_another(hotpool: Run, reads: ReadApi) -> None:
    for stored in reads.objects.values():
        stored.clear()
    text = "no fleet in namespace fleet: no operator has run in it; see -n and --context\n"
    for words in (("top",), ("status",), ("why", "--node", "edge-1"), ("why", "--pool", "zh-en"), ("drain", "edge-1")):
        result = await hotpool(*words)
        assert (result.code, result.out, result.err) == (5, "", f"hotpool {words[0]}: {text}")
    for fleets, names in (
        ([], ""),
        (["speech", "fleets"], "; similar: fleets"),
        (["b", "a"], "; fleets: a, b"),
        (list("hgcdab"), "; fleets: a, b, c, d, g and 1 more"),
    ):
        reads.elsewhere = fleets
        for command in ("top", "status"):
            assert (await hotpool(command)).err == f"hotpool {command}: {text.rstrip()}{names}\n"
    reads.put(election_lease(ago(0)))
    result = await hotpool("why", "--node", "edge-1")
    assert result.code == 5
    assert result.err.endswith("in namespace fleet; there is none at all: see -n and --context\n")
    assert (await hotpool("top")).code == 0


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("none/file", "there is no folder {folder}/none"),
        ("", "it is a folder; give a file"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_written_is_refused_with_the_reason(
    hotpool: Run, tmp_path: Path, file: str, reason: str
) -> None:
    path = tmp_path / file
    result = await hotpool("enroll", "edge-1", "-o", str(path))
    assert result.code == 2
    assert result.err.splitlines()[-1] == f"Error: -o {path}: {reason.format(folder=tmp_path)}"


async def test_an_address_of_redis_that_is_none_is_a_usage_error(hotpool: Run) -> None:
    result = await hotpool("pick", "zh-en", "--redis", "127.0.0.1")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "the URL of Redis is invalid; expected redis[s]://" in result.err


async def test_a_redis_that_is_too_old_is_named_with_the_version_that_is_needed(hotpool: Run) -> None:
    text = f"version {VERSION}) has no functions: Redis 7.0 or later, or Valkey 7.2 or later, is needed\n"
    async with old_redis() as url:
        picked = await hotpool("pick", "zh-en", "--redis", url)
        explained = await hotpool("why", "--node", "edge-1", "--redis", url)
    assert (picked.code, picked.out, picked.err) == (3, "", f"hotpool pick: this Redis ({text}")
    assert (explained.code, explained.err) == (0, f"warning: nothing is read from Redis: this Redis ({text}")


async def test_top_watches_on_a_terminal_until_ctrl_c(reads: ReadApi, environment: dict[str, str]) -> None:
    master, terminal = pty.openpty()
    program = str(Path(sys.executable).with_name("hotpool"))
    size = {**os.environ, **environment, "LINES": "24", "TERM": "xterm"}
    process = await asyncio.create_subprocess_exec(
        program, "top", "pools", "-w", stdin=terminal, stdout=terminal, stderr=terminal, env=size
    )
    os.close(terminal)
    output = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(master, lambda: output.extend(_read(master)))
    try:
        await _until(lambda: re.search(r"zh-en +1 +0 +0 +1 +0", _plain(output)))
        assert b"\x1b[32m" in output, "colours on a terminal"
        reads.put(slice_object("zh-en", 0, "edge-1", "edge-2"), slice_object("asr", 0))
        await _until(lambda: re.search(r"asr +0 +0 +0 +2 +2\b.*zh-en +2 +0 +0 +1 +1", _plain(output), re.DOTALL))
        reads.refused = {"nodepools": 500}
        await _until(lambda: re.search(r"retrying.*zh-en +2 ", _plain(output), re.DOTALL))
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        loop.remove_reader(master)
        os.close(master)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def _plain(output: bytearray) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode(errors="replace"))


async def _until(condition: Callable[[], object]) -> None:
    """Poll until the condition is true: output of a terminal has no events."""
    for _ in range(1200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the expected output did not appear")
