"""v1 Nodes that are not ready, unreachable or shut down (requirements C8, D8, F2)."""

from typing import Any

import pytest
from tests.support.builders import (
    H,
    condition,
    kube_node,
    kube_node_object,
    lease,
    node,
    open_cache,
    pool,
    report,
    requires,
    service,
)

from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.explain.explain import Explanation, explain
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.kube_node_health import (
    HEALTHY,
    SHUTDOWN_MESSAGE,
    SHUTDOWN_TAINTS,
    KubeNodeHealth,
    KubeNodeProblem,
    kube_node_health,
)
from hotpool.core.matching import Criterion
from hotpool.core.model import Key, Kind, KubeNode, Observed
from hotpool.core.node_liveness import OVERDUE_AFTER
from hotpool.core.planning.pool_plan import plan_node
from hotpool.kube.decode import decode

NODE, LLM = Key(Kind.NODE, "n"), Key(Kind.POOL, "llm")
OFF = f"[container runtime is down, {SHUTDOWN_MESSAGE}]"
OVERDUE = OVERDUE_AFTER * H
CONTENT = report(service("q", "llm"))
UID = "uid-kube-n"


class Course:
    """A cache with pool llm and node n, which beats at second 0, and its v1 Node."""

    def __init__(self, cache: ClusterCache | None = None, *, others: int = 0) -> None:
        self.cache = cache or open_cache()
        self.version, self.beats, self.now = 1, 0, 0.0
        if not cache:
            self.cache.upsert(pool("llm", requires=requires("llm")), 0)
            for name in ("n", *(f"o{number}" for number in range(others))):
                self.cache.upsert(node(name, CONTENT), 0)

    def kube(self, ready: str | None = "True", name: str = "n", **more: Any) -> set[Key]:
        """Deliver a new version of a v1 Node."""
        self.version += 1
        return self.cache.upsert(kube_node(name, version=self.version, ready=ready, **more), self.now)

    def at(self, seconds: float) -> set[Key]:
        """Let time pass without a heartbeat."""
        self.now = seconds
        return self.cache.advance(seconds)

    def beat(self, name: str = "n") -> set[Key]:
        self.beats += 1
        return self.cache.record_heartbeat(lease(name, f"{self.beats}"), self.now)

    @property
    def state(self) -> str | None:
        return self.cache.pools["llm"].members.get("n")

    @property
    def ready(self) -> tuple[str, str]:
        """Status and reason of the node's condition Ready."""
        first = plan_node(self.cache.nodes["n"].view, "t").conditions[0]
        return first.status, first.reason

    @property
    def explanation(self) -> Explanation:
        return explain(NodeFacts(self.cache.nodes["n"].view), pool("llm", requires=requires("llm")), None)


@pytest.mark.parametrize(
    ("ready", "message", "taints", "expected"),
    [
        ("True", "kubelet is posting ready status", (), HEALTHY),
        (None, "", (), KubeNodeHealth()),
        ("False", "container runtime is down", (), KubeNodeHealth("False")),
        ("Unknown", "Kubelet stopped posting node status.", (), KubeNodeHealth("Unknown")),
        ("False", OFF, (), KubeNodeHealth("False", SHUTDOWN_MESSAGE)),
        ("False", OFF, SHUTDOWN_TAINTS, KubeNodeHealth("False", SHUTDOWN_MESSAGE)),
        ("True", SHUTDOWN_MESSAGE, (), HEALTHY),
        ("Unknown", SHUTDOWN_MESSAGE, (), KubeNodeHealth("Unknown")),
        ("True", "", ("a", SHUTDOWN_TAINTS[1]), KubeNodeHealth("True", SHUTDOWN_TAINTS[1])),
        ("Unknown", "", (SHUTDOWN_TAINTS[0],), KubeNodeHealth("Unknown", SHUTDOWN_TAINTS[0])),
        ("False", "", ("node.kubernetes.io/not-ready",), KubeNodeHealth("False")),
    ],
)
def test_the_health_of_a_node_follows_from_ready_and_two_taints(
    ready: Any, message: str, taints: tuple[str, ...], expected: KubeNodeHealth
) -> None:
    assert kube_node_health(ready, "R", message, taints) == expected


def test_a_long_message_is_shortened_to_one_line() -> None:
    found = kube_node_health("False", "KubeletNotReady", "a\n b " + "c" * 1000, ())
    assert found.detail.startswith("KubeletNotReady: a b ccc")
    assert len(found.detail) == 256


@pytest.mark.parametrize(
    "conditions",
    [
        None,
        "Ready",
        {"type": "Ready"},
        [None, 7, "Ready"],
        [{"type": "Ready"}],
        [{"type": "Ready", "status": ["False"]}],
    ],
)
def test_a_node_with_malformed_or_missing_conditions_counts_as_one_without(conditions: Any) -> None:
    body = kube_node_object("n", cordoned=True) | {"status": {"conditions": conditions}}
    body["spec"]["taints"] = conditions
    found = decode(Kind.KUBE_NODE, body)
    assert isinstance(found, KubeNode)
    assert (found.health, found.unschedulable) == (KubeNodeHealth(), True)


@pytest.mark.parametrize("status", [None, [], "x"])
def test_a_node_without_a_status_counts_as_healthy(status: Any) -> None:
    course = Course()
    found = decode(Kind.KUBE_NODE, kube_node_object("n", version=2) | {"status": status})
    assert isinstance(found, KubeNode)
    course.cache.upsert(found, 0)
    assert (course.state, course.ready) == ("Ready", ("True", "Live"))


def test_not_ready_makes_a_node_suspect_at_once_for_as_long_as_it_lasts() -> None:
    course = Course()
    assert course.kube("False") >= {NODE, LLM}
    assert (course.state, course.ready) == ("Suspect", ("False", "NodeNotReady"))
    for second in range(15, 300, 15):
        course.at(second)
        assert course.beat() == set()
    assert course.state == "Suspect"
    assert course.kube("True") >= {NODE, LLM}
    assert (course.state, course.ready) == ("Ready", ("True", "Live"))


def test_unknown_alone_does_not_make_a_node_suspect() -> None:
    course = Course()
    assert LLM not in course.kube("Unknown")
    for second in range(15, 300, 15):
        assert course.at(second) == set()
        assert course.beat() == set()
    assert (course.state, course.ready) == ("Ready", ("True", "Live"))


def test_unknown_and_a_missed_heartbeat_make_a_node_suspect_until_its_next_heartbeat() -> None:
    course = Course()
    course.kube("Unknown")
    assert course.cache.next_deadline() == OVERDUE
    assert course.at(OVERDUE - 0.1) == set()
    assert course.at(OVERDUE) >= {NODE, LLM}
    assert (course.state, course.ready) == ("Suspect", ("False", "NodeUnreachable"))
    assert course.beat() >= {NODE, LLM}
    assert (course.state, course.ready) == ("Ready", ("True", "Live"))
    assert course.at(2 * OVERDUE) >= {NODE, LLM}
    course.kube("True")
    assert course.state == "Ready"


def test_a_new_report_is_a_heartbeat_of_an_unreachable_node() -> None:
    course = Course()
    course.kube("Unknown")
    course.at(OVERDUE)
    assert course.cache.upsert(node("n", CONTENT | {"sequence": 2}, version=2), OVERDUE) >= {NODE, LLM}
    assert course.state == "Ready"


def test_unknown_counts_at_once_for_an_agent_that_was_silent_before() -> None:
    course = Course()
    course.at(40)
    assert course.kube("Unknown") == {NODE}, "its key wakes the manager"
    assert course.cache.next_deadline() == OVERDUE
    assert course.at(40) >= {NODE, LLM}
    assert course.state == "Suspect"


def test_silence_that_the_lease_watch_does_not_confirm_does_not_make_a_node_unreachable() -> None:
    course = Course()
    course.kube("Unknown")
    assert course.cache.advance(100, confirmed_until=2) == set()
    assert course.state == "Ready"


def test_silence_of_a_node_that_is_not_ready_counts_from_three_intervals_on() -> None:
    course = Course()
    course.kube("False")
    course.at(3 * H)
    assert (course.state, course.ready) == ("Suspect", ("Unknown", "Suspect"))
    course.at(4 * H)
    assert (course.state, course.ready) == (None, ("Unknown", "Offline"))


@pytest.mark.parametrize(("ready", "silent"), [("False", 0), ("Unknown", OVERDUE)])
def test_the_brake_does_not_count_nodes_that_only_their_nodes_make_suspect(ready: str, silent: float) -> None:
    course = Course(others=9)
    for name in ("n", *(f"o{number}" for number in range(8))):
        course.kube(ready, name)
    course.at(silent)
    membership = course.cache.pools["llm"]
    assert (membership.counts["Suspect"], len(membership.suspect), membership.brake_active) == (9, 0, False)


def test_a_zone_that_is_not_ready_keeps_its_members_and_a_silent_one_leaves() -> None:
    course = Course(others=9)
    names = ["n", *(f"o{number}" for number in range(9))]
    for name in names:
        course.kube("False", name)
    for second in range(0, int(4 * H) + 1, 5):
        course.at(second)
        for name in names[1:]:
            course.beat(name)
    membership = course.cache.pools["llm"]
    assert dict(membership.members) == dict.fromkeys(names[1:], "Suspect")
    assert not membership.brake_active


def test_a_cordon_has_precedence_over_not_ready() -> None:
    course = Course()
    course.kube("False", cordoned=True)
    assert (course.state, course.ready) == ("Draining", ("False", "NodeNotReady"))


SHUT_DOWN = [{"ready": "False", "message": OFF}, *({"taints": [key]} for key in SHUTDOWN_TAINTS)]
REASONS = ["NodeShutdown", "NodeOutOfService", "NodeOutOfService"]


@pytest.mark.parametrize(("more", "reason"), list(zip(SHUT_DOWN, REASONS, strict=True)))
def test_a_node_that_shuts_down_leaves_at_once_although_it_beats(more: dict[str, Any], reason: str) -> None:
    course = Course(others=2)
    for name in ("n", "o0", "o1"):
        course.kube(name=name, **more)
    membership = course.cache.pools["llm"]
    assert (membership.members, membership.criteria["n"]) == ({}, Criterion.NODE_SHUTDOWN)
    assert not membership.brake_active
    plan = plan_node(course.cache.nodes["n"].view, "t")
    assert (plan.types, course.ready) == (None, ("False", reason))
    assert course.beat() == set()
    assert course.kube("True") >= {NODE, LLM}
    assert (course.state, course.ready) == ("Ready", ("True", "Live"))


def test_a_machine_that_is_off_does_not_come_back_as_unknown() -> None:
    course = Course()
    course.kube("False", message=OFF)
    course.at(10)
    course.beat()
    course.at(40)
    course.kube("Unknown", message="Kubelet stopped posting node status.")
    assert (course.state, course.ready) == (None, ("False", "NodeShutdown"))
    course.at(10 + 4 * H)
    assert (course.state, course.ready) == (None, ("Unknown", "Offline"))


def test_a_heartbeat_while_the_kubelet_is_silent_ends_a_shutdown() -> None:
    course = Course()
    course.kube("False", message=OFF)
    course.kube("Unknown")
    assert course.state is None
    course.at(5)
    assert course.beat() >= {NODE, LLM}
    assert course.state == "Ready"
    course.kube("False", message=OFF)
    assert course.state is None
    course.kube("False", message="container runtime is down")
    assert course.state == "Suspect"
    course.kube("Unknown")
    assert course.state == "Ready"


def test_the_end_of_a_taint_counts_also_while_the_kubelet_is_silent() -> None:
    course = Course()
    course.kube("Unknown", taints=[SHUTDOWN_TAINTS[0]])
    assert course.state is None
    course.kube("Unknown")
    assert course.state == "Ready"


def test_a_node_of_another_uid_starts_anew() -> None:
    course = Course()
    course.kube("False", message=OFF)
    course.kube("Unknown", uid="another")
    assert course.state == "Ready"
    course.kube("False", uid="another")
    assert course.cache.delete(Kind.KUBE_NODE, "n", UID) == set(), "a late event of the former one"
    assert course.state == "Suspect"
    assert course.cache.delete(Kind.KUBE_NODE, "n", "another") >= {NODE, LLM}
    assert course.state == "Ready"


def test_flapping_ends_in_the_last_state() -> None:
    course = Course()
    states = []
    for ready in ("False", "True") * 5 + ("Unknown", "False"):
        course.kube(ready)
        states.append(course.state)
    assert states == ["Suspect", "Ready"] * 5 + ["Ready", "Suspect"]


def stored_ready(reason: str) -> dict[str, Any]:
    """Return a stored condition Ready with this reason."""
    statuses = {"Live": "True", "Suspect": "Unknown", "Offline": "Unknown"}
    return condition("Ready", statuses.get(reason, "False"), reason)


def before_the_gate() -> ClusterCache:
    """Return the cache of a new operator that has listed the pool."""
    cache = ClusterCache()
    cache.upsert(pool("llm", requires=requires("llm")), 0)
    return cache


@pytest.mark.parametrize("kube_first", [False, True])
@pytest.mark.parametrize(
    ("stored", "ready", "state", "after_heartbeat"),
    [
        ("NodeNotReady", "False", "Suspect", "Suspect"),
        ("Live", "False", "Suspect", "Suspect"),
        ("NodeNotReady", "True", "Ready", "Ready"),
        ("NodeUnreachable", "Unknown", "Suspect", "Ready"),
        ("NodeUnreachable", "True", "Ready", "Ready"),
        ("NodeShutdown", "Unknown", None, "Ready"),
        ("NodeShutdown", "True", "Ready", "Ready"),
        ("NodeOutOfService", "Unknown", "Ready", "Ready"),
        ("Suspect", "False", "Suspect", "Suspect"),
        ("Offline", "False", None, "Suspect"),
    ],
)
def test_after_a_restart_the_state_follows_from_the_node_and_the_stored_reason(
    *, kube_first: bool, stored: str, ready: str, state: str | None, after_heartbeat: str
) -> None:
    cache = before_the_gate()
    items: list[Observed] = [node("n", CONTENT, conditions=[stored_ready(stored)]), kube_node("n", ready=ready)]
    for item in reversed(items) if kube_first else items:
        cache.upsert(item, 0)
    course = Course(cache)
    course.beat()
    assert course.state == state
    cache.gate_open = True
    assert not any(cache.on_leader_acquired(0))
    assert course.state == state
    assert cache.pools["llm"].suspect == ({"n"} if stored == "Suspect" else set())
    course.beat()
    assert course.state == after_heartbeat


@pytest.mark.parametrize(("stored", "state"), [("NodeUnreachable", "Suspect"), ("NodeShutdown", None)])
def test_a_standby_takes_over_what_the_leader_measured(stored: str, state: str | None) -> None:
    """It was started after the node's last heartbeat, and before the leader wrote the condition."""
    course = Course(before_the_gate())
    course.cache.upsert(node("n", CONTENT, conditions=[stored_ready("Live")]), 0)
    course.kube("Unknown")
    course.cache.gate_open = True
    course.cache.upsert(node("n", CONTENT, version=2, conditions=[stored_ready(stored)]), 1)
    assert course.state == "Ready"
    assert not any(course.cache.on_leader_acquired(1))
    assert course.state == state
    course.beat()
    assert not any(course.cache.on_leader_acquired(2))
    assert course.state == "Ready"


def test_a_standby_does_not_take_over_a_shutdown_that_ended_while_nobody_led() -> None:
    course = Course(before_the_gate())
    course.cache.upsert(node("n", CONTENT, conditions=[stored_ready("NodeShutdown")]), 0)
    course.kube("False", message=OFF)
    course.cache.gate_open = True
    course.kube("True")
    course.kube("Unknown")
    assert not any(course.cache.on_leader_acquired(1))
    assert course.state == "Ready"


def test_why_names_the_problem_of_the_node() -> None:
    course = Course()
    course.kube("False", message="container runtime is down")
    (remark,) = course.explanation.remarks[:1]
    assert remark.reason == KubeNodeProblem.NOT_READY
    assert remark.text == "the Node is not ready (Kubelet: container runtime is down): offered last"
    assert remark.remedies == ("look at the kubelet: kubectl describe node n",)
    course.kube("Unknown")
    course.at(OVERDUE)
    (remark,) = course.explanation.remarks[:1]
    assert remark.reason == KubeNodeProblem.UNREACHABLE


@pytest.mark.parametrize(
    ("more", "observed", "remedy"),
    [
        (SHUT_DOWN[0], "the kubelet is shutting down", "start the machine"),
        (SHUT_DOWN[1], f"taint {SHUTDOWN_TAINTS[0]}", f"kubectl taint node n {SHUTDOWN_TAINTS[0]}-"),
    ],
)
def test_why_names_the_sign_of_a_shutdown(more: dict[str, Any], observed: str, remedy: str) -> None:
    course = Course()
    course.kube(**more)
    decided = course.explanation.first_unmet
    assert decided
    assert (decided.criterion, decided.observed) == (Criterion.NODE_SHUTDOWN, observed)
    assert remedy in decided.remedies[0]


def test_why_has_no_line_about_the_node_without_one() -> None:
    course = Course()
    assert Criterion.NODE_SHUTDOWN not in {item.criterion for item in course.explanation.requirements}
    course.kube()
    assert Criterion.NODE_SHUTDOWN in {item.criterion for item in course.explanation.requirements}
