"""Which v1 Node this agent runs on, by the token that its pod was given (requirement B12). I/O: one file.

The claims are read without a check of their signature: whoever can put a token here is the agent's own kubelet, and
nothing is granted by what is read. What the token is worth the API server decides, which does check it with each
request; a forged one would only have this agent refused.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final

from hotpool_agent.kube import credentials
from hotpool_agent.kube.credentials import Target, in_pod

_UID_MAX: Final = 63
_NAME_MAX: Final = 253


@dataclass(frozen=True, slots=True)
class KubeNode:
    """A v1 Node: its uid stays when a pod on it is replaced, and is another one when the Node is made anew."""

    uid: str
    name: str


def kube_node(target: Target) -> KubeNode | None:
    """The v1 Node of the pod that this is; None outside one, or where the token does not name it."""
    if not in_pod(target):
        return None
    try:
        return node_in((credentials.SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None


def node_in(token: str) -> KubeNode | None:
    """The v1 Node in the claims of a node-bound service account token (Kubernetes >= 1.32)."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        node = claims["kubernetes.io"]["node"]
        uid, name = node["uid"], node["name"]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(uid, str) or not isinstance(name, str):
        return None
    return KubeNode(uid, name) if 0 < len(uid) <= _UID_MAX and len(name) <= _NAME_MAX else None
