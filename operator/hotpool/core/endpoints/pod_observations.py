"""Pods that agents name as services, and what the operator itself read of them (requirement B13). Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hotpool.core.model import PodReference


class PodAddresses(NamedTuple):
    """Node and addresses of a pod, as the API server has them."""

    node: str
    addresses: tuple[str, ...]


NO_POD: Final = PodAddresses("", ())
"""Result of a read that found no such pod, another pod of that name, or one that has ended."""
PodClaims = Mapping[PodReference, tuple[str, ...]]
"""Pod → addresses that one node claims for it."""


@dataclass(slots=True)
class PodObservations:
    """Claimed pods, the last read of each, and those that must be read."""

    unread: set[PodReference] = field(default_factory=set)
    """Pods to read: claimed since the last read, or in doubt."""
    _claims: dict[PodReference, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    """Pod → node → addresses."""
    _observed: dict[PodReference, PodAddresses | None] = field(default_factory=dict)
    """Pod → what was read; None: no attempt has succeeded. A pod without an attempt is missing."""

    def claim(self, node: str, before: PodClaims, after: PodClaims) -> None:
        """Replace the claims of a node. A new claim that the last read does not confirm needs another read."""
        for pod in before.keys() - after.keys():
            self._claims[pod].pop(node)
            if not self._claims[pod]:
                del self._claims[pod]
                self._observed.pop(pod, None)
                self.unread.discard(pod)
        for pod, addresses in after.items():
            if before.get(pod) != addresses:
                self._claims.setdefault(pod, {})[node] = addresses
                if not all(self.confirms(pod, node, address) for address in addresses):
                    self.unread.add(pod)

    def observe(self, pod: PodReference, found: PodAddresses | None) -> Iterable[str]:
        """Record a read, or a failed one (None), which is no evidence against an earlier one. Return the nodes."""
        if pod not in self._claims:
            return ()
        self._observed[pod] = found or self._observed.get(pod)
        return tuple(self._claims[pod])

    def state(self, pod: PodReference) -> tuple[object, ...]:
        """Return a value that differs whenever the judgement of a claim of the pod may differ."""
        return self.is_pending(pod), self._observed.get(pod)

    def confirms(self, pod: PodReference, node: str, address: str) -> bool:
        """Return True if the pod runs on the node and has the address."""
        found = self._observed.get(pod)
        return found is not None and found.node == node and address in found.addresses

    def is_claimed(self, pod: PodReference) -> bool:
        """Return True while a node claims the pod."""
        return pod in self._claims

    def is_pending(self, pod: PodReference) -> bool:
        """Return True before the first attempt to read the pod has ended."""
        return pod not in self._observed

    def take_unread(self) -> set[PodReference]:
        """Return the pods to read, and forget them."""
        taken, self.unread = self.unread, set()
        return taken

    @property
    def pending(self) -> bool:
        """True while a claimed pod was never read, not even without success."""
        return any(pod not in self._observed for pod in self._claims)
