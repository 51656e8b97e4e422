"""Uid and resourceVersion of each known object, to detect old versions and late events of deleted objects.

Pure. Independent of the objects' content.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hotpool.core.model import Identity, Key, Kind


@dataclass(slots=True)
class ObjectVersions:
    """Uid and version of every object, and the uids of deleted ones."""

    _known: dict[Kind, dict[str, Identity]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    _deleted: dict[Key, str] = field(default_factory=dict)
    """Key → uid of the object deleted last; late events of it are ignored."""
    _deleted_before: dict[Key, str] = field(default_factory=dict)
    """The same, of deletions before the last call of `forget_deletions`."""

    def of_kind(self, kind: Kind) -> Mapping[str, Identity]:
        """Return name → uid and version of all objects of a kind: a live view, not a copy."""
        return self._known[kind]

    def accept(self, kind: Kind, name: str, identity: Identity, *, restored: bool) -> bool:
        """Record this version. Return False if it is old or its object deleted. `restored`: accept it anyway (C7)."""
        known = self._known[kind].get(name)
        not_newer = known is not None and known.version >= identity.version
        if not restored and (not_newer or self._was_deleted(kind, name, identity.uid)):
            return False
        self._known[kind][name] = identity
        self._deleted.pop(Key(kind, name), None)
        self._deleted_before.pop(Key(kind, name), None)
        return True

    def remove(self, kind: Kind, name: str, uid: str) -> bool:
        """Remove the object. Return False if it is not known, or if the known object has another uid."""
        known = self._known[kind].get(name)
        if known is not None and known.uid != uid:
            return False
        self._deleted[Key(kind, name)] = uid
        return self._known[kind].pop(name, None) is not None

    def conflicts(self, kind: Kind, name: str, listed: Identity) -> bool:
        """Return True if the cache is newer than a listed object: the list is stale, or etcd was restored."""
        known = self._known[kind].get(name)
        if known is None:
            return self._was_deleted(kind, name, listed.uid)
        return known.version > listed.version

    def forget_deletions(self) -> None:
        """Forget the deletions before the previous call. Call it after each complete listing: it repairs the rest."""
        self._deleted_before, self._deleted = self._deleted, {}

    def _was_deleted(self, kind: Kind, name: str, uid: str) -> bool:
        key = Key(kind, name)
        return uid in {self._deleted.get(key), self._deleted_before.get(key)}
