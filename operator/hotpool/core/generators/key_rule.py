"""What a rule of a generator is (requirement D5): which keys a node offers, and what a key's pool requires.

The rules are in `core.generators.language_rules` and `core.generators.value_rules`; made and asked by
`core.generators.admission` and `core.generators.key_index`. The pools' own specs say all that membership needs, so that
`why` and the look at one pool know nothing of rules. Pure.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Final, Generic, TypeVar

from hotpool.api.pool import GeneratedKind, PoolTemplateSpec, Requirements
from hotpool.core.matching import Criterion, first_failure, predicates
from hotpool.core.model import NodeView
from hotpool.core.pairs import Pairs

MAX_KEYS: Final = 10_000
"""Keys that one node may offer to one generator: the first by name."""

Source = TypeVar("Source", Pairs, frozenset[str], str)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one node; `more`: it has more of them than count; `cut`: the search for them ended early."""

    keys: frozenset[str]
    over_limit: bool = False
    truncated: bool = False


class KeyRule(ABC, Generic[Source]):
    """One rule with its template. A node's keys follow from its `source`: equal sources, equal keys."""

    needs_pairs: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    """True where a node also counts for keys that only others offer, where `joins` holds."""

    def __init__(self, template: PoolTemplateSpec) -> None:
        self._predicates = tuple(
            check for check in predicates(template) if check.criterion is not Criterion.EMPTY_REQUIREMENTS
        )
        self.template = template
        """What a node must meet before it offers any key."""

    def source(self, view: NodeView) -> Source | None:
        """What the node's keys follow from; None where it offers none.

        A template that requires nothing is no obstacle: the rule adds the requirement.
        """
        if first_failure(view, self._predicates).state is None:
            return None
        return self._source(view) or None

    @abstractmethod
    def _source(self, view: NodeView) -> Source | None:
        """As `source`, of a node that meets the template."""

    @abstractmethod
    def offered(self, source: Source) -> KeySet:
        """The keys."""

    @abstractmethod
    def kind(self, key: str) -> GeneratedKind:
        """Which kind of pool the key's is."""

    @abstractmethod
    def is_valid_key(self, key: str) -> bool:
        """Whether the rule makes pools of such a key at all."""

    @abstractmethod
    def requirements(self, key: str) -> Requirements:
        """The template's requirements and the rule's own."""

    def joins(self, source: Source, key: str) -> bool:  # noqa: ARG002 - where `shared`.
        """Whether a node counts for a key that others offer."""
        return False

    def refusal_reason(self, key: str) -> str | None:  # noqa: ARG002 - most rules refuse nothing.
        """Why no pool is made of a key that nodes offer."""
        return None


def first_keys(keys: Iterable[str]) -> KeySet:
    """The first keys, which are in sorted order."""
    kept = tuple(islice(keys, MAX_KEYS + 1))
    return KeySet(frozenset(kept[:MAX_KEYS]), over_limit=len(kept) > MAX_KEYS)
