"""The v1 Node of this agent, from the service account token of its pod (requirement B12). I/O: one file.

The claims are read without a check of their signature, because nothing is granted by them. Only the kubelet can place a
token here. The API server verifies it with each request: with a forged token this agent would only be refused.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from hotpool.common import kubeconfig
from hotpool.common.kubeconfig import Target, TargetError
from hotpool.common.threads import run_in_thread
from hotpool_agent.untrusted_text import parse_json, representable

_READ_SECONDS: Final = 5.0
_UID_MAX: Final = 63
_NAME_MAX: Final = 253


@dataclass(frozen=True, slots=True)
class KubeNode:
    """A v1 Node. Its uid stays when a pod on it is replaced, and changes when the Node is created again."""

    uid: str
    name: str


def kube_node(target: Target) -> KubeNode | None:
    """Return the v1 Node of this pod, or None outside a pod or if the token does not name a Node."""
    try:
        return parse_node(run_in_thread(lambda: _read_token(target)).result(_READ_SECONDS).strip())
    except (OSError, UnicodeDecodeError, TargetError):
        return None


def _read_token(target: Target) -> str:
    """Return the token that the agent uses, empty if it is not that of its pod."""
    if not kubeconfig.service_account_used(target, kubeconfig.load(target)):
        return ""
    return (kubeconfig.SERVICE_ACCOUNT / "token").read_text(encoding="utf-8")


def parse_node(token: str) -> KubeNode | None:
    """Return the v1 Node in the claims of a node-bound service account token (Kubernetes >= 1.32), or None."""
    try:
        payload = token.split(".")[1]
        claims: Any = parse_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        node = claims["kubernetes.io"]["node"]
        uid, name = node["uid"], node["name"]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(uid, str) or not isinstance(name, str) or not representable(uid) or not representable(name):
        return None
    return KubeNode(uid, name) if 0 < len(uid) <= _UID_MAX and len(name) <= _NAME_MAX else None
