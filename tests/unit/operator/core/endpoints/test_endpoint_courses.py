"""Any course of observations leads to the endpoints of its end, and names each node that it changes (B13)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, Final

from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.builders import kube_node, node, open_cache, pool, report, service

from hotpool.core.address_problems import AddressProblem
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.endpoints.endpoint_index import EndpointIndex
from hotpool.core.endpoints.pod_observations import NO_POD, PodAddresses
from hotpool.core.model import Endpoint, Key, Kind, NodeView, PodReference

NAMES: Final = ("n0", "n1", "n2")
ADDRESSES: Final = ("10.0.0.1", "10.0.0.2", "192.0.2.1", "127.0.0.1", "10.96.0.1")
PODS: Final = tuple(PodReference("a", name, f"uid-{name}") for name in ("p", "q"))
SERVICES: Final = (ip_network("10.96.0.0/12"),)

Result = tuple[dict[str, Endpoint], tuple[AddressProblem, ...]]
addresses = st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True)


@dataclass(frozen=True)
class Reported:
    """A node reports these services; with `leaving`, it leaves."""

    name: str
    services: Sequence[dict[str, Any]]
    addresses: Sequence[str]
    people: Sequence[str]
    leaving: bool


@dataclass(frozen=True)
class Listed:
    """A v1 Node has these addresses."""

    name: str
    addresses: Sequence[str]


@dataclass(frozen=True)
class Read:
    """The operator has read a pod; None: the read failed."""

    pod: PodReference
    found: PodAddresses | None


@dataclass(frozen=True)
class Deleted:
    """A NodeCapability is deleted."""

    name: str


@dataclass(frozen=True)
class Passed:
    """Time passes without a heartbeat."""

    seconds: float


@dataclass(frozen=True)
class Judged:
    """The policy is another one."""

    policy: AddressPolicy


Step = Reported | Listed | Read | Deleted | Passed | Judged


@st.composite
def services(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(0, 3))):
        pod = draw(st.sampled_from((None, *PODS)))
        endpoint = {"addresses": draw(addresses), "port": draw(st.sampled_from([80, 81]))}
        found.append(service(f"s{number}", "asr", endpoint=endpoint, pod=pod and pod._asdict()))
    return found


names = st.sampled_from(NAMES)
policies = st.builds(
    AddressPolicy,
    allowed_cidrs=st.sampled_from([(), (ip_network("10.0.0.0/8"),)]),
    service_cidrs=st.sampled_from([(), SERVICES]),
    trust_agents=st.booleans(),
)
reads = st.one_of(st.none(), st.just(NO_POD), st.builds(PodAddresses, names, addresses.map(tuple)))
steps = st.one_of(
    st.builds(Reported, names, services(), addresses, addresses, st.sampled_from([False, False, False, True])),
    st.builds(Listed, names, addresses),
    st.builds(Read, st.sampled_from(PODS), reads),
    st.builds(Deleted, names),
    st.builds(Passed, st.sampled_from([20.0, 50.0])),
    st.builds(Judged, policies),
)


class Course:
    """A cache in the course of the steps."""

    def __init__(self) -> None:
        self.cache: ClusterCache = open_cache()
        self.cache.upsert(pool("p", requires={"types": [{"type": "asr"}], "endpoint": "Required"}), 0)
        self._now = 0.0
        self._version = 1

    def do(self, step: Step) -> set[Key]:
        """Observe a step. Return the keys to reconcile."""
        cache, self._version = self.cache, self._version + 1
        match step:
            case Reported():
                found = [{"ip": ip, "source": "Route"} for ip in step.addresses]
                content = report(*step.services, addresses=found, leaving=step.leaving, sequence=self._version)
                return cache.upsert(node(step.name, content, addresses=step.people, version=self._version), self._now)
            case Listed():
                found_node = replace(kube_node(step.name, version=self._version), addresses=tuple(step.addresses))
                return cache.upsert(found_node, self._now)
            case Read():
                return cache.observe_pod(step.pod, step.found)
            case Deleted():
                return cache.delete(Kind.NODE, step.name, f"uid-{step.name}")
            case Passed():
                self._now += step.seconds
                return self._advance()
            case Judged():
                return set[Key]().union(*cache.apply_policy(step.policy))

    def _advance(self) -> set[Key]:
        dirty = self.cache.advance(self._now)
        while (due := self.cache.next_deadline()) is not None and due <= self._now:
            dirty |= self.cache.advance(self._now)
        return dirty

    def results(self) -> dict[str, Result]:
        """Return endpoints and problems of each node."""
        return {name: _result(tracker.view) for name, tracker in self.cache.nodes.items()}

    def members(self) -> dict[str, str]:
        """Return the members of the pool."""
        return dict(self.cache.pools["p"].members)


def _result(view: NodeView) -> Result:
    return dict(view.endpoints), view.address_problems


def from_scratch(cache: ClusterCache) -> dict[str, Result]:
    """Return the results of an index that has seen nothing but the end of a course."""
    views = [tracker.view for tracker in cache.nodes.values()]
    fresh = EndpointIndex(cache.endpoints.policy, cache.endpoints.pods)
    for view in views:
        fresh.update(view)
    return {view.node.meta.name: _result(fresh.applied(view)) for view in views}


def claim(name: str, *of_service: str, pod: PodReference | None = None) -> Reported:
    """Return the report of a node with one service."""
    endpoint = {"addresses": of_service, "port": 80}
    return Reported(name, [service("s0", "asr", endpoint=endpoint, pod=pod and pod._asdict())], (), (), leaving=False)


@given(st.lists(steps, max_size=12))
@example([claim("n0", "10.0.0.1", pod=PODS[0]), Judged(AddressPolicy(trust_agents=False)), Read(PODS[0], None)])
@example([claim("n0", "10.0.0.1"), claim("n1", "10.0.0.1", pod=PODS[0]), Read(PODS[0], None)])
@example(
    [
        Judged(AddressPolicy(service_cidrs=SERVICES)),
        claim("n0", "10.0.0.1"),
        claim("n1", "10.0.0.1", "10.96.0.1"),
        Judged(AddressPolicy(allowed_cidrs=(ip_network("10.0.0.0/8"),))),
    ]
)
def test_the_course_of_observations_does_not_matter_and_each_node_that_it_changes_is_named(
    course: Sequence[Step],
) -> None:
    it = Course()
    for step in course:
        before, members = it.results(), it.members()
        dirty = it.do(step)
        after = it.results()
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert {Key(Kind.NODE, name) for name in changed} <= dirty
        assert it.members() == members or Key(Kind.POOL, "p") in dirty
    assert it.results() == from_scratch(it.cache)
