"""What an agent's account consists of, and which step of a rotation is due: pure.

A node has at most two credentials, because there are two names for them: with the later serial the one that is handed
out, with the earlier one the former, which goes once the API server has seen the other.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import yaml

from hotpool.api import meta

Json = dict[str, Any]

ACCOUNT_PREFIX: Final = "hotpool-agent-"
ENROLLED_LABEL: Final = f"{meta.GROUP}/enrolled"
"""On everything that `enroll` makes, so that all of it can be listed and removed."""
SLOTS: Final = (".a", ".b")
NODE_ANNOTATION: Final = f"{meta.GROUP}/node"
SERIAL_ANNOTATION: Final = f"{meta.GROUP}/serial"
LAST_USED_LABEL: Final = "kubernetes.io/legacy-token-last-used"
"""Written by the API server when it first accepts the token, and then once a day."""
_ACCOUNT_ANNOTATION: Final = "kubernetes.io/service-account.name"
_TOKEN_TYPE: Final = "kubernetes.io/service-account-token"  # noqa: S105 - the type of a Secret.
_RBAC: Final = "rbac.authorization.k8s.io"


class ForeignError(Exception):
    """A name of ours is somebody else's; the message says which."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One Secret with a token."""

    name: str
    uid: str
    serial: int
    used: bool
    token: str
    """Empty until the controller-manager has filled it."""
    authority: str
    """The cluster's own certificates (PEM)."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a run does: it hands out `newest`, made first where it is None, and ends `over`."""

    newest: Credential | None
    make: str
    serial: int
    former: Credential | None
    """Works until `newest` has been used."""
    over: Credential | None


def account_of(node: str) -> str:
    """The name of a node's ServiceAccount, Role and RoleBinding."""
    return f"{ACCOUNT_PREFIX}{node}"


def secrets_of(node: str) -> tuple[str, ...]:
    """The names of a node's credentials."""
    return tuple(f"{account_of(node)}{slot}" for slot in SLOTS)


def step(names: tuple[str, ...], found: Iterable[Credential]) -> Step:
    """What is due, given the credentials that exist."""
    ordered = sorted(found, key=lambda item: item.serial)
    if not ordered:
        return Step(None, names[0], 1, None, None)
    *earlier, newest = ordered
    former = earlier[-1] if earlier else None
    if not newest.used:
        return Step(newest, "", 0, former, None)
    if former:
        return Step(newest, "", 0, None, former)
    return Step(None, next(name for name in names if name != newest.name), newest.serial + 1, newest, None)


def account(node: str, namespace: str) -> list[Json]:
    """The ServiceAccount, Role and RoleBinding, to be applied in this order."""
    name = account_of(node)
    binding = {
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    return [
        _object("v1", "ServiceAccount", name, node, automountServiceAccountToken=False),
        _object(f"{_RBAC}/v1", "Role", name, node, rules=_rules(node)),
        _object(f"{_RBAC}/v1", "RoleBinding", name, node, **binding),
    ]


def secret(name: str, node: str, serial: int) -> Json:
    """A credential that the controller-manager fills with a token without end."""
    made = _object("v1", "Secret", name, node, type=_TOKEN_TYPE)
    made["metadata"]["annotations"] |= {_ACCOUNT_ANNOTATION: account_of(node), SERIAL_ANNOTATION: str(serial)}
    return made


def credential(name: str, node: str, read: Json) -> Credential:
    """A Secret as it was read. Raises ForeignError."""
    annotations, serial = read["annotations"], str(read["annotations"].get(SERIAL_ANNOTATION))
    ours = read["type"] == _TOKEN_TYPE and annotations.get(_ACCOUNT_ANNOTATION) == account_of(node)
    if not ours or not serial.isdecimal():
        raise ForeignError(f"Secret {name} was not made by hotpool enroll; delete or rename it first")
    used = LAST_USED_LABEL in read["labels"]
    data = read["data"]
    return Credential(name, read["uid"], int(serial), used, _text(data, "token"), _text(data, "ca.crt"))


def kubeconfig(node: str, namespace: str, token: str, cluster: Json) -> str:
    """The file with which the agent logs in. `cluster`: where, as a kubeconfig says it."""
    name = account_of(node)
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "hotpool",
        "clusters": [{"name": "hotpool", "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "hotpool", "context": {"cluster": "hotpool", "user": name, "namespace": namespace}}],
    }
    return yaml.safe_dump(content, sort_keys=False)


def encoded(authority: str) -> str:
    """Certificates as a kubeconfig holds them."""
    return base64.b64encode(authority.encode()).decode()


def is_of(text: str, node: str) -> bool:
    """Whether that is such a file of this node."""
    try:
        users = [user["name"] for user in yaml.safe_load(text)["users"]]
    except (yaml.YAMLError, LookupError, TypeError):
        return False
    return users == [account_of(node)]


def _rules(node: str) -> list[Json]:
    """As in the chart's Role of agents, with names: why each verb is needed is said there."""
    names: list[tuple[str, str, str, list[str]]] = [
        (meta.GROUP, "nodecapabilities", node, ["get", "list", "watch", "create", "patch"]),
        (meta.GROUP, "nodecapabilities/status", node, ["patch"]),
        ("coordination.k8s.io", "leases", f"{meta.LEASE_PREFIX}{node}", ["get", "create", "patch"]),
        ("", "events", f"{node}.{meta.NAME_TAKEN_SUFFIX}", ["create", "patch"]),
    ]
    return [
        {"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": verbs}
        for group, resource, name, verbs in names
    ]


def _object(version: str, kind: str, name: str, node: str, **rest: Any) -> Json:
    labels = {
        "app.kubernetes.io/name": "hotpool",
        "app.kubernetes.io/component": "agent",
        "app.kubernetes.io/part-of": "hotpool",
        ENROLLED_LABEL: "true",
    }
    metadata = {"name": name, "labels": labels, "annotations": {NODE_ANNOTATION: node}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _text(data: dict[str, str], key: str) -> str:
    try:
        return base64.b64decode(data.get(key, ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
