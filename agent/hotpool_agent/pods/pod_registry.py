"""The pods that are services of the node, by namespace, and the ids that they have in the report (requirement B11).

Pure but for what it remembers. Must not know how anything is heard.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from hotpool_agent.pods.json_access import Json, mapping, text
from hotpool_agent.pods.pod_service import Pod, hashed_id, pod_service
from hotpool_agent.services.status import ServiceStatus

Key = tuple[str, str]
"""Namespace and name."""


class PodRegistry:
    """What was heard last. A pod keeps its id for as long as it is there."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, Pod]] = {}
        self._ids: dict[Key, str] = {}

    def replace(self, namespace: str, pods: Iterable[Json]) -> None:
        """These are all pods of the namespace."""
        found = [pod_service(namespace, pod) for pod in pods]
        self._pods[namespace] = {pod.name: pod for pod in found}

    def apply_event(self, namespace: str, kind: str, pod: Json) -> None:
        """An event of the namespace's watch; a bookmark changes nothing."""
        known = self._pods.setdefault(namespace, {})
        if kind in {"ADDED", "MODIFIED"}:
            found = pod_service(namespace, pod)
            known[found.name] = found
        elif kind == "DELETED":
            known.pop(text(mapping(pod.get("metadata")).get("name")) or "", None)

    def services(self, taken: Collection[str]) -> tuple[list[ServiceStatus], list[str]]:
        """The services, oldest pod first, with ids of their own that are not `taken`; and of the others, why not.

        Who comes first has its name as its id. What has the same name elsewhere gets an id that nobody else has.
        """
        pods = sorted((pod for known in self._pods.values() for pod in known.values()), key=_age)
        refused = [f"pod {pod.title}: {pod.rejection}" for pod in pods if pod.status is None]
        ids: dict[Key, str] = {}
        used = set(taken)
        for choose in (self._kept_id, _requested_id, _hashed_id):
            for pod in pods:
                identifier = choose(pod)
                if pod.status and identifier and (key := _key(pod)) not in ids and identifier not in used:
                    ids[key] = identifier
                    used.add(identifier)
        self._ids = ids
        shown = [_with_id(pod.status, ids[_key(pod)]) for pod in pods if pod.status and _key(pod) in ids]
        refused += [f"pod {pod.title}: no free id" for pod in pods if pod.status and _key(pod) not in ids]
        return shown, refused

    def _kept_id(self, pod: Pod) -> str | None:
        return self._ids.get(_key(pod))


def _requested_id(pod: Pod) -> str | None:
    return pod.status.spec.id if pod.status else None


def _hashed_id(pod: Pod) -> str:
    return hashed_id(pod.namespace, pod.name)


def _key(pod: Pod) -> Key:
    return pod.namespace, pod.name


def _age(pod: Pod) -> tuple[str, str, str]:
    return pod.created, pod.namespace, pod.name


def _with_id(snapshot: ServiceStatus, identifier: str) -> ServiceStatus:
    if snapshot.spec.id == identifier:
        return snapshot
    return replace(snapshot, spec=snapshot.spec.model_copy(update={"id": identifier}))
