"""Pods that are services of the node, by namespace, and their ids in the report (requirement B11).

Pure apart from its own state. Must not know how pods are watched.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from hotpool_agent.json_access import Json, mapping, text
from hotpool_agent.pods.pod_service import Pod, hashed_id, pod_service
from hotpool_agent.services.status import ServiceStatus

Key = tuple[str, str]
"""Namespace and name."""


class PodRegistry:
    """Last known pods. A pod keeps its id for as long as it exists."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, Pod]] = {}
        self._ids: dict[Key, str] = {}

    def replace(self, namespace: str, pods: Iterable[Json]) -> None:
        """Replace all pods of the namespace."""
        translated = [_translated(namespace, pod) for pod in pods]
        self._pods[namespace] = {pod.name: pod for pod in translated}

    def apply_event(self, namespace: str, kind: str, pod: Json) -> None:
        """Apply an event of the namespace's watch; a bookmark changes nothing."""
        known = self._pods.setdefault(namespace, {})
        if kind in {"ADDED", "MODIFIED"}:
            translated = _translated(namespace, pod)
            known[translated.name] = translated
        elif kind == "DELETED":
            known.pop(text(mapping(pod.get("metadata")).get("name")) or "", None)

    def services(self, taken: Collection[str]) -> tuple[list[ServiceStatus], list[str]]:
        """Return the services, oldest pod first, with unique ids not in `taken`, and the reasons of rejected pods.

        The id of a pod is its name. A later pod of the same name in another namespace gets a hashed id.
        """
        pods = sorted((pod for known in self._pods.values() for pod in known.values()), key=_age)
        rejected = [f"pod {pod.title}: {pod.rejection}" for pod in pods if pod.status is None]
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
        rejected += [f"pod {pod.title}: no free id" for pod in pods if pod.status and _key(pod) not in ids]
        return shown, rejected

    def _kept_id(self, pod: Pod) -> str | None:
        return self._ids.get(_key(pod))


def _translated(namespace: str, pod: Json) -> Pod:
    """Translate a pod. One that raises anything is rejected, so that it does not affect the others."""
    try:
        return pod_service(namespace, pod)
    except Exception as error:  # noqa: BLE001 - a pod is untrusted
        metadata = mapping(pod.get("metadata"))
        name, created = text(metadata.get("name")) or "", text(metadata.get("creationTimestamp")) or ""
        return Pod(namespace, name, created, rejection=f"cannot be read: {type(error).__name__}: {error}")


def _requested_id(pod: Pod) -> str | None:
    return pod.status.spec.id if pod.status else None


def _hashed_id(pod: Pod) -> str:
    return hashed_id(pod.namespace, pod.name)


def _key(pod: Pod) -> Key:
    return pod.namespace, pod.name


def _age(pod: Pod) -> tuple[str, str, str]:
    return pod.created, pod.namespace, pod.name


def _with_id(status: ServiceStatus, identifier: str) -> ServiceStatus:
    if status.spec.id == identifier:
        return status
    return replace(status, spec=status.spec.model_copy(update={"id": identifier}))
