"""Which object of each name is known, and in which version: what is older, or known to be deleted, is dropped.

Held by `core.cluster_cache`. Pure. It knows nothing of what the objects say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hotpool.core.model import Identity, Key, Kind


@dataclass(slots=True)
class ObjectVersions:
    """Uid and version of every object, and the uids of those last seen deleted."""

    _known: dict[Kind, dict[str, Identity]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    _deleted: dict[Key, str] = field(default_factory=dict)
    """Key → uid of the object last seen deleted; late events of it are dropped."""

    def of_kind(self, kind: Kind) -> Mapping[str, Identity]:
        """Name → uid and version of every object of one kind, as it is now."""
        return self._known[kind]

    def accept(self, kind: Kind, name: str, seen: Identity, *, restored: bool) -> bool:
        """Whether this is news; it is then what is known. `restored`: it is, whatever was known (requirement C7)."""
        known = self._known[kind].get(name)
        old = known is not None and known.version >= seen.version
        if not restored and (old or self._deleted.get(Key(kind, name)) == seen.uid):
            return False
        self._known[kind][name] = seen
        self._deleted.pop(Key(kind, name), None)
        return True

    def remove(self, kind: Kind, name: str, uid: str) -> bool:
        """Whether the object that is known by this name is deleted hereby; another one of the name is not."""
        known = self._known[kind].get(name)
        if known is not None and known.uid != uid:
            return False
        self._deleted[Key(kind, name)] = uid
        return self._known[kind].pop(name, None) is not None

    def conflicts(self, kind: Kind, name: str, listed: Identity) -> bool:
        """Whether what is known is newer than what a list holds: the list is late, or the store went back."""
        known = self._known[kind].get(name)
        if known is None:
            return self._deleted.get(Key(kind, name)) == listed.uid
        return known.version > listed.version
