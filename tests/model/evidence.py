"""An API server that looks at each write of a slice: promise 1, nobody is removed without evidence.

What it finds is kept, not raised: it is inside the operator's own call.
"""

from typing import TYPE_CHECKING, Any

from tests.support.simulated_fleet import FakeApi, now

from hotpool.api.meta import POOL_LABEL
from hotpool.core.model import Kind

if TYPE_CHECKING:
    from tests.model.expected_state import Truth

Json = dict[str, Any]


class WatchedApi(FakeApi):
    """The API server of a world."""

    truth: "Truth"

    def __init__(self) -> None:
        super().__init__()
        self.unjustified: list[str] = []

    def _done(self, verb: str, kind: Kind, name: str, body: Json) -> Json:
        pool, before = self._before_write(kind, name)
        stored = super()._done(verb, kind, name, body)
        self._note_pool(verb, kind)
        self._after_write(pool, before)
        return stored

    async def remove(self, kind: Kind, name: str, version: str) -> Json:
        """As the API server does."""
        pool, before = self._before_write(kind, name)
        gone = await super().remove(kind, name, version)
        self._note_pool("delete", kind)
        self._after_write(pool, before)
        return gone

    def _note_pool(self, verb: str, kind: Kind) -> None:
        """A pool that a generator makes or removes, or a node that is forgotten, is a change of its own."""
        if kind in {Kind.POOL, Kind.NODE} and verb in {"create", "delete"}:
            self.truth.touched = now()

    def _before_write(self, kind: Kind, name: str) -> tuple[str | None, set[str]]:
        self.truth.advance(now())
        stored = self.objects[Kind.SLICE].get(name) if kind is Kind.SLICE else None
        pool: str | None = (stored["metadata"].get("labels") or {}).get(POOL_LABEL) if stored else None
        return pool, set(self.members(pool)) if pool else set()

    def _after_write(self, pool: str | None, before: set[str]) -> None:
        if pool is None:
            return
        for node in sorted(before - set(self.members(pool))):
            if why := self._without_evidence(pool, node):
                self.unjustified.append(f"{now():.2f}: {node} removed from {pool}, but {why}")

    def _without_evidence(self, pool: str, node: str) -> str | None:
        """Why a removal is wrong; None where it is right."""
        body, life = self.objects[Kind.POOL].get(pool), self.truth.lives.get(node)
        if body is None or life is None or node not in self.objects[Kind.NODE]:
            return None
        if (pool, node) in self.truth.unfit or not self.truth.belongs(body, node):
            return None
        if life.state != "Offline":
            silent = now() - max(life.heard, self.truth.fresh)
            return None if (pool, node) in self.truth.released else f"it is {life.state}, silent for {silent:.1f} s"
        return None if (pool, node) in self.truth.released else "the brake holds"
