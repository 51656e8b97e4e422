"""Health of a v1 Node: its condition Ready and the marks of a shutdown (requirement C8).

Pure. Says nothing about the heartbeats of the agent; `core.node_liveness` joins both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hotpool.api.meta import Tristate

SHUTDOWN_TAINTS: Final = (
    "node.kubernetes.io/out-of-service",
    "node.cloudprovider.kubernetes.io/shutdown",
)
"""Keys of the taints of a machine that is off: set by people, and by the cloud's node lifecycle controller."""
SHUTDOWN_MESSAGE: Final = "node is shutting down"
"""Part of the message of Ready=False during a graceful shutdown; the kubelet has no reason of its own for it."""
_MAX_DETAIL_LENGTH: Final = 256


class KubeNodeProblem(StrEnum):
    """Problem of the v1 Node for which a member is Suspect; also the reason of the node's condition Ready."""

    NOT_READY = "NodeNotReady"
    """The kubelet reports Ready=False."""
    UNREACHABLE = "NodeUnreachable"
    """The node controller set Ready=Unknown, and the agent is silent, too."""


NODE_SHUTDOWN: Final = "NodeShutdown"
"""Reason of the condition Ready of a node that leaves all pools because its kubelet announced a shutdown."""
NODE_OUT_OF_SERVICE: Final = "NodeOutOfService"
"""The same for a taint. A restart must distinguish them, because a taint ends with its removal."""


@dataclass(frozen=True, slots=True)
class KubeNodeHealth:
    """Health of one v1 Node. Two are equal if they have the same effect."""

    ready: Tristate | None = None
    """Status of the condition Ready; None: there is none, which is no evidence of a problem."""
    shutdown: str | None = None
    """SHUTDOWN_MESSAGE or the key of a taint, if the Node shuts down or is off."""
    detail: str = field(default="", compare=False)
    """Reason and message of a condition Ready that is not True, shortened."""

    @property
    def shutting_down(self) -> bool:
        """True if the kubelet itself reports the shutdown. It cannot withdraw that once the machine is off."""
        return self.shutdown == SHUTDOWN_MESSAGE


HEALTHY: Final = KubeNodeHealth("True")


def kube_node_health(ready: Tristate | None, reason: str, message: str, taints: Iterable[str]) -> KubeNodeHealth:
    """Return the health for a condition Ready (None: missing) and the keys of all taints."""
    if ready == "False" and SHUTDOWN_MESSAGE in message:
        shutdown: str | None = SHUTDOWN_MESSAGE
    else:
        keys = set(taints)
        shutdown = next((key for key in SHUTDOWN_TAINTS if key in keys), None)
    if ready == "True" and shutdown is None:
        return HEALTHY
    return KubeNodeHealth(ready, shutdown, "" if ready in {"True", None} else _detail(reason, message))


def describe_shutdown(shutdown: str | None) -> str:
    """Return the text for a sign of a shutdown: SHUTDOWN_MESSAGE, the key of a taint, or None."""
    if shutdown is None:
        return "not shut down"
    return "the kubelet is shutting down" if shutdown == SHUTDOWN_MESSAGE else f"taint {shutdown}"


def describe_problem(problem: KubeNodeProblem, detail: str) -> str:
    """Return the text for a problem; `detail`: reason and message of the condition Ready of the v1 Node."""
    unreachable = "the Node is unreachable, and the agent missed its heartbeat"
    text = "the Node is not ready" if problem is KubeNodeProblem.NOT_READY else unreachable
    return f"{text} ({detail})" if detail else text


def _detail(reason: str, message: str) -> str:
    text = ": ".join(filter(None, (reason, " ".join(message.split()))))
    return text if len(text) <= _MAX_DETAIL_LENGTH else f"{text[: _MAX_DETAIL_LENGTH - 1]}…"
