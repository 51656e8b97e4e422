"""Interface of a generator's rule (requirement D5): keys that a node offers, and requirements of a key's pool.

`core.generators.language_rules` and `core.generators.value_rules` implement it. The spec of a generated pool contains
all that membership needs, so that matching and `hotpool why` do not depend on rules. Pure.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Final, Generic, TypeVar

from hotpool.api.pool import GeneratedKind, PoolTemplateSpec, Requirements
from hotpool.core.language_pairs import Pairs
from hotpool.core.matching import Criterion, first_failure, predicates
from hotpool.core.model import NodeView

MAX_KEYS: Final = 10_000
"""Bound of the keys that one node offers to one generator; the first by name count."""

Source = TypeVar("Source", Pairs, frozenset[str], str)


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys of one node. `over_limit`: it has more than MAX_KEYS; `truncated`: the search for keys ended early."""

    keys: frozenset[str]
    over_limit: bool = False
    truncated: bool = False


class KeyRule(ABC, Generic[Source]):
    """One rule with its template. A node's keys depend only on its `source`."""

    _kind: ClassVar[GeneratedKind]
    needs_pairs: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    """True if a node also counts for keys of other nodes, for which `joins` is true."""

    def __init__(self, template: PoolTemplateSpec) -> None:
        self._predicates = tuple(
            item for item in predicates(template) if item.criterion is not Criterion.EMPTY_REQUIREMENTS
        )
        self.template = template
        """Requirements that a node must meet to offer any key."""

    def source(self, view: NodeView) -> Source | None:
        """Return the value that the node's keys depend on; None if it offers none.

        A template without requirements is allowed, because the rule adds one.
        """
        if first_failure(view, self._predicates).state is None:
            return None
        return self._source(view) or None

    @abstractmethod
    def _source(self, view: NodeView) -> Source | None:
        """Return the source of a node that meets the template."""

    @abstractmethod
    def offered(self, source: Source) -> KeySet:
        """Return the keys that nodes with this source offer."""

    def kind(self, key: str) -> GeneratedKind:  # noqa: ARG002 - only one rule makes pools of two kinds.
        """Return the kind of the key's pool."""
        return self._kind

    @abstractmethod
    def is_valid_key(self, key: str) -> bool:
        """Return True if the rule can make a pool for this key."""

    @abstractmethod
    def requirements(self, key: str) -> Requirements:
        """Return the requirements of the template and of the rule."""

    def joins(self, source: Source, key: str) -> bool:  # noqa: ARG002 - only shared rules need it.
        """Return True if nodes with this source count for a key that others offer."""
        return False

    def refusal_reason(self, key: str) -> str | None:  # noqa: ARG002 - most rules refuse nothing.
        """Return the reason why an offered key gets no pool, or None."""
        return None


def first_keys(keys: Iterable[str]) -> KeySet:
    """Return the first MAX_KEYS of sorted keys."""
    kept = tuple(islice(keys, MAX_KEYS + 1))
    return KeySet(frozenset(kept[:MAX_KEYS]), over_limit=len(kept) > MAX_KEYS)
