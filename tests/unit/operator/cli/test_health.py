"""Health of a fleet from outside, as `hotpool status` judges and prints it (requirement F2)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.builders import (
    condition,
    election_lease,
    generator_object,
    node_object,
    pool_object,
    probe_lease,
    report,
    service,
)

from hotpool.api.meta import timestamp
from hotpool.cli import json_output
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.cli.health import FleetHealth, RedisHealth, judge
from hotpool.cli.leader import Leader, leader_of, warning_of
from hotpool.cli.render.status import MAX_PROBLEMS, show_status
from hotpool.core.model import Kind

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> str:
    return timestamp(NOW - timedelta(seconds=seconds))


def leading(**annotations: Any) -> Leader:
    return leader_of(election_lease(ago(1), version="0.1.0", **annotations), probe_lease(ago(4)), NOW)


def with_status(body: dict[str, Any], *conditions: dict[str, Any], observed: int = 1) -> dict[str, Any]:
    ready = next((item["status"] for item in conditions if item["type"] == "Ready"), None)
    return {**body, "status": {"observedGeneration": observed, "conditions": list(conditions), "ready": ready}}


def pool(name: str, status: str = "True", reason: str = "EnoughMembers", **more: Any) -> dict[str, Any]:
    return with_status(pool_object(name, **more), condition(status=status, reason=reason))


def health(*bodies: dict[str, Any], **more: Any) -> FleetHealth:
    """Return the health of a fleet of two live nodes and these objects."""
    snapshot = FleetSnapshot()
    kinds = {"NodeCapability": Kind.NODE, "NodePool": Kind.POOL, "NodePoolGenerator": Kind.GENERATOR}
    nodes = [node_object(name, report(service("w", "asr")), conditions=[condition()]) for name in ("edge-1", "edge-2")]
    for body in (*nodes, *bodies):
        snapshot.add(kinds[body["kind"]], body)
    given: dict[str, Any] = {"leader": leading(), "redis": None, "definitions": None, "refused": {}}
    return judge("speech", snapshot, **given | more)


def problems(found: FleetHealth) -> list[tuple[str, str]]:
    return [(item.subject, item.reason) for item in found.problems]


def test_a_fleet_is_healthy_with_a_leader_and_ready_pools() -> None:
    found = health(pool("asr"), with_status(generator_object("g"), condition()))
    assert (found.healthy, found.problems) == (True, ())
    assert (found.nodes, found.agents, found.pools, found.pools_ready) == ({"Live": 2}, {"t": 2}, 1, 1)


@pytest.mark.parametrize(
    ("lease", "expected"),
    [
        (None, "there is no Lease hotpool-operator, so none has run yet"),
        (election_lease(ago(40), holder=None), "the last one ended 40s ago"),
        (election_lease(ago(45)), "operator-1 has not renewed its Lease for 45s"),
        ({"metadata": {"name": "hotpool-operator"}}, "the Lease has no holder"),
    ],
)
def test_a_lease_that_nobody_renews_means_that_no_operator_leads(lease: dict[str, Any] | None, expected: str) -> None:
    leader = leader_of(lease, None, NOW)
    assert (leader.leads, leader.problem) == (False, expected)
    assert warning_of(leader) == f"WARNING: no operator leads: {expected}. What follows may be old."
    assert problems(health(leader=leader)) == [("operator", "NoLeader")]


def test_a_lease_that_is_seen_to_be_renewed_counts_whatever_the_clocks_say() -> None:
    for skew in (-3600, 3600):
        assert not leader_of(election_lease(ago(skew)), None, NOW).leads
        assert leader_of(election_lease(ago(skew)), None, NOW, renewing=True).leads
    assert not leader_of(election_lease(ago(0), holder=None), None, NOW, renewing=True).leads


def test_a_probe_lease_that_stays_behind_the_election_lease_is_a_problem() -> None:
    late = leader_of(election_lease(ago(1)), probe_lease(ago(60)), NOW)
    assert problems(health(leader=late)) == [("operator", "ProbeLost")]


@pytest.mark.parametrize(
    ("redis", "expected"),
    [
        (RedisHealth(3.0, complete=True), []),
        (RedisHealth(60.0, complete=True), [("redis", "Stale")]),
        (RedisHealth(None, complete=False), [("redis", "Stale")]),
        (RedisHealth(3.0, complete=False), [("redis", "Incomplete")]),
        (RedisHealth(error="away"), [("redis", "Unavailable")]),
    ],
)
def test_redis_must_be_fresh_and_complete(redis: RedisHealth, expected: list[tuple[str, str]]) -> None:
    assert problems(health(redis=redis)) == expected


def test_a_pool_or_generator_that_is_not_ready_is_a_problem_with_its_reason() -> None:
    silent = with_status(
        pool_object("silent"),
        condition(status="False", reason="TooFewMembers", message="0 Ready members, 1 required"),
        condition("MassSilence", "True", "BrakeHolds", message="3 of 4 nodes are silent"),
    )
    found = health(
        pool("few", "False", "TooFewMembers"),
        pool("trial", "False", "DryRun"),
        silent,
        pool_object("new"),
        with_status(pool_object("edited", generation=3), condition(), observed=2),
        with_status(generator_object("g"), condition(status="False", reason="InvalidSpec")),
    )
    assert problems(found) == [
        ("nodepool/few", "TooFewMembers"),
        ("nodepool/silent", "TooFewMembers"),
        ("nodepool/new", "NotObserved"),
        ("nodepool/edited", "NotObserved"),
        ("nodepoolgenerator/g", "InvalidSpec"),
    ]
    assert found.problems[1].message == "0 Ready members, 1 required; MassSilence: 3 of 4 nodes are silent"


def test_a_command_and_an_annotation_without_effect_are_problems() -> None:
    paused = pool("p")
    paused["metadata"]["annotations"] = {"hotpool.dev/paused": "yes"}
    node = node_object("edge-1", report(service("w", "asr")), conditions=[condition()])
    node["spec"] = {"services": [{"id": "x", "desired": "Running"}]}
    assert problems(health(paused, node)) == [
        ("nodepool/p", "PauseIgnored"),
        ("nodecapability/edge-1", "CommandIgnored"),
    ]


def test_definitions_older_than_the_operator_needs_are_a_problem() -> None:
    leader = leading(schema_revision="7")
    definitions = {"nodepools": 6, "nodepoolslices": 7, "nodecapabilities": None}
    found = health(leader=leader, definitions=definitions)
    assert problems(found) == [("definitions", "Outdated"), ("definitions", "NotInstalled")]


def test_what_cannot_be_read_is_named_and_never_called_healthy() -> None:
    found = health(refused={"nodepools": "not allowed to list nodepools"})
    assert (found.healthy, found.problems, found.pools) == (False, (), None)
    assert health(leader=None).healthy is False
    assert health(refused={"nodepoolgenerators": "not allowed"}).healthy is True


def test_the_first_line_is_the_verdict_and_problems_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    show_status(health(pool("asr")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "speech: healthy"
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[3:]}
    assert rows["operator"] == "operator-1 leads, term 8, Lease renewed 1s ago"
    assert (rows["nodes"], rows["pools"]) == ("2: 2 Live", "1: 1 ready")
    assert rows["versions"] == "definitions revision unknown; operator 0.1.0; agents t (2)"
    many = [pool(f"p{index:02}", "False", "TooFewMembers") for index in range(MAX_PROBLEMS + 3)]
    show_status(health(*many, refused={"leases": "not allowed to list leases"}, leader=None))
    out = capsys.readouterr().out
    assert out.startswith(f"speech: NOT healthy, {MAX_PROBLEMS + 3} problems\n")
    assert "… and 3 more: -o json\n" in out
    assert out.endswith("Cannot be read:\n- not allowed to list leases\n")


def test_the_json_has_the_documented_fields() -> None:
    document = json_output.status(health(pool("few", "False", "TooFewMembers"), redis=RedisHealth(3.0, complete=True)))
    assert document.keys() == {
        "namespace",
        "healthy",
        "problems",
        "unreadable",
        "operator",
        "redis",
        "nodes",
        "pools",
        "definitions",
        "agents",
    }
    assert document["operator"] == {
        "holder": "operator-1",
        "term": 8,
        "renewed": ago(1),
        "ageSeconds": 1.0,
        "version": "0.1.0",
        "schemaRevision": None,
        "probeLagSeconds": 3.0,
        "problem": None,
        "leads": True,
    }
    assert document["redis"] == {"ageSeconds": 3.0, "complete": True, "error": None}
    assert document["problems"] == [{"subject": "nodepool/few", "reason": "TooFewMembers", "message": ""}]
    assert (document["nodes"], document["agents"]) == ([{"reason": "Live", "count": 2}], [{"version": "t", "count": 2}])
