"""Manifests of the account of an agent, and steps of a rotation. Pure.

A node has at most two credentials, because there are two names for them. The newest, with the higher serial, is handed
out. The former is deleted after the API server has accepted the newest.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import yaml

from hotpool.api import meta
from hotpool.cli.options import CommandError
from hotpool.common import exit_codes

Json = dict[str, Any]

ACCOUNT_PREFIX: Final = "hotpool-agent-"
ENROLLED_LABEL: Final = f"{meta.GROUP}/enrolled"
"""Label of all objects that `enroll` creates, so that they can be listed and deleted."""
SLOTS: Final = (".a", ".b")
NODE_ANNOTATION: Final = f"{meta.GROUP}/node"
SERIAL_ANNOTATION: Final = f"{meta.GROUP}/serial"
LAST_USED_LABEL: Final = "kubernetes.io/legacy-token-last-used"
"""Label that the API server sets when it first accepts the token, and then once a day."""
_ACCOUNT_ANNOTATION: Final = "kubernetes.io/service-account.name"
_TOKEN_TYPE: Final = "kubernetes.io/service-account-token"  # noqa: S105 - the type of a Secret.
_RBAC: Final = "rbac.authorization.k8s.io"


class ForeignError(CommandError):
    """An object with the name was not created by `enroll`; the message has its name."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_codes.USAGE)


@dataclass(frozen=True, slots=True)
class Credential:
    """Secret with a token."""

    name: str
    uid: str
    serial: int
    used: bool
    token: str
    """Empty until the controller-manager has written it."""
    authority: str
    """CA certificates of the cluster (PEM)."""


@dataclass(frozen=True, slots=True)
class RotationStep:
    """One step of a rotation: create `newest` if it is None, hand it out, and delete `retired`."""

    newest: Credential | None
    new_name: str
    serial: int
    former: Credential | None
    """Valid until `newest` has been used."""
    retired: Credential | None


def account_name(node: str) -> str:
    """Return the name of the ServiceAccount, Role and RoleBinding of a node."""
    return f"{ACCOUNT_PREFIX}{node}"


def secret_names(node: str) -> tuple[str, ...]:
    """Return the names of the credentials of a node."""
    return tuple(f"{account_name(node)}{slot}" for slot in SLOTS)


def next_step(names: tuple[str, ...], existing: Iterable[Credential]) -> RotationStep:
    """Return the next step of a rotation."""
    ordered = sorted(existing, key=lambda item: item.serial)
    if not ordered:
        return RotationStep(None, names[0], 1, None, None)
    *earlier, newest = ordered
    former = earlier[-1] if earlier else None
    if not newest.used:
        return RotationStep(newest, "", 0, former, None)
    if former:
        return RotationStep(newest, "", 0, None, former)
    return RotationStep(None, next(name for name in names if name != newest.name), newest.serial + 1, newest, None)


def account(node: str, namespace: str) -> list[Json]:
    """Return ServiceAccount, Role and RoleBinding, to be applied in this order."""
    name = account_name(node)
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
    """Return a Secret for which the controller-manager creates a token that does not expire."""
    body = _object("v1", "Secret", name, node, type=_TOKEN_TYPE)
    body["metadata"]["annotations"] |= {_ACCOUNT_ANNOTATION: account_name(node), SERIAL_ANNOTATION: str(serial)}
    return body


def credential(name: str, node: str, stored: Json) -> Credential:
    """Return the credential in a Secret. Raises ForeignError if `enroll` did not create it."""
    metadata, data = stored["metadata"], stored.get("data") or {}
    annotations = metadata.get("annotations") or {}
    serial = str(annotations.get(SERIAL_ANNOTATION))
    ours = stored.get("type") == _TOKEN_TYPE and annotations.get(_ACCOUNT_ANNOTATION) == account_name(node)
    if not ours or not serial.isdecimal():
        raise ForeignError(f"Secret {name} was not created by hotpool enroll; delete it first")
    used = LAST_USED_LABEL in (metadata.get("labels") or {})
    return Credential(name, metadata["uid"], int(serial), used, _text(data, "token"), _text(data, "ca.crt"))


def kubeconfig(node: str, namespace: str, token: str, cluster: Json) -> str:
    """Return the kubeconfig of the agent. `cluster`: address and CA in the form of a kubeconfig."""
    name = account_name(node)
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "hotpool",
        "clusters": [{"name": "hotpool", "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "hotpool", "context": {"cluster": "hotpool", "user": name, "namespace": namespace}}],
    }
    return yaml.safe_dump(content, sort_keys=False)


def encode_authority(authority: str) -> str:
    """Return certificates in the base64 form of a kubeconfig."""
    return base64.b64encode(authority.encode()).decode()


def belongs_to(text: str, node: str) -> bool:
    """Return True if the text is a kubeconfig of this node."""
    try:
        users = [user["name"] for user in yaml.safe_load(text)["users"]]
    except (yaml.YAMLError, LookupError, TypeError):
        return False
    return users == [account_name(node)]


def _rules(node: str) -> list[Json]:
    """Return the rules of the chart's Role for agents, with resource names. The chart explains each verb."""
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
