"""Pods of the agent's node that are services: created, changed and deleted at random, without a kubelet."""

import random
from typing import Any, Final

from kubernetes import client
from tests.support.agent_world.entries import ODD_SCALARS
from tests.support.fake_pods import pod, status

from localfleet.fleet import Fleet
from localfleet.process import wait_for

_NAMES: Final = ("pod-1", "pod-2")
_ODD_KEYS: Final = ("attributes", "device", "port", "model")
_ANNOTATION_BYTES: Final = 60_000
"""All annotations of an object have at most 256 KiB."""


class WorldPods:
    """Pods with a type of their own. The expected state of each is what the API server holds."""

    def __init__(self, fleet: Fleet, node: str, chance: random.Random) -> None:
        self._fleet = fleet
        self._node = node
        self._random = chance
        api: Any = fleet.objects.api_client
        self._core: Any = client.CoreV1Api(api)

    def install(self) -> None:
        """Allow the node's agent to read the pods."""
        namespace, name = self._fleet.namespace, f"hotpool-agent-{self._node}"
        metadata = {"name": "pods", "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        self._fleet.apply(
            {
                "apiVersion": f"{group}/v1",
                "kind": "Role",
                "metadata": metadata,
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
            },
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "pods"},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            },
        )

    def change(self) -> str:
        """Create a pod, or change its readiness or its annotations, or delete it. Return what was done."""
        name = self._random.choice(_NAMES)
        if name not in self._list():
            self._create(name)
            return f"{name} created"
        match self._random.choice(["ready", "not ready", "annotate", "annotate", "delete"]):
            case "annotate":
                key, value = self._random.choice(_ODD_KEYS), self._odd_value()
                body = {"metadata": {"annotations": {f"hotpool.dev/{key}": value}}}
                self._core.patch_namespaced_pod(name, self._fleet.namespace, body)
                return f"{name}: {key} {value[:40]!r}"
            case "delete":
                self._core.delete_namespaced_pod(name, self._fleet.namespace, grace_period_seconds=0)
                return f"{name} deleted"
            case readiness:
                self._set(name, ready=readiness == "ready")
                return f"{name} {readiness}"

    def expected(self) -> dict[str, bool]:
        """Return name → whether the pod's service runs."""
        return {
            name: any(item.type == "Ready" and item.status == "True" for item in found.status.conditions or ())
            for name, found in self._list().items()
        }

    def _list(self) -> dict[str, Any]:
        found = self._core.list_namespaced_pod(self._fleet.namespace, label_selector="hotpool.dev/type")
        return {item.metadata.name: item for item in found.items}

    def _create(self, name: str) -> None:
        account = f"hotpool-agent-{self._node}"
        wait_for("the account", lambda: self._has_account(account))
        template = pod(name, f"type-{name}", node=self._node)
        body = {key: template[key] for key in ("apiVersion", "kind", "spec")}
        body["metadata"] = {key: template["metadata"][key] for key in ("name", "labels")}
        body["spec"] |= {"serviceAccountName": account, "automountServiceAccountToken": False}
        self._core.create_namespaced_pod(self._fleet.namespace, body)
        self._set(name, ready=True)

    def _has_account(self, name: str) -> bool:
        found = self._core.list_namespaced_service_account(self._fleet.namespace).items
        return name in {item.metadata.name for item in found}

    def _set(self, name: str, *, ready: bool) -> None:
        self._core.patch_namespaced_pod_status(name, self._fleet.namespace, {"status": status(ready=ready)})

    def _odd_value(self) -> str:
        """Return the text of an annotation: an odd scalar, or attributes with one as value, in a list, or as key."""
        odd = self._random.choice([*ODD_SCALARS, "\0", "\ufeff\u2028", "x" * 10**6])
        shape = self._random.choice(["%s", "{languages: %s}", "{tier: [gold, %s]}", "{%s: [gold]}"])
        return (shape % odd)[:_ANNOTATION_BYTES]
