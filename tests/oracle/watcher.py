"""An API server that looks at each write of a slice: promise 1, nobody is removed without evidence.

Used by `tests.oracle.world`. What it finds is kept, not raised: it is inside the operator's own call.
"""

from typing import TYPE_CHECKING, Any

from tests.flow.fakes import FakeApi, now

from hotpool.api.meta import POOL_LABEL
from hotpool.core.model import Kind

if TYPE_CHECKING:
    from tests.oracle.truth import Truth

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
        self._after_write(pool, before)
        return stored

    async def delete_namespaced_custom_object(self, *where: Any, body: Any, **more: Any) -> Json:
        """As the API server does."""
        kind, name = Kind(where[3]), where[4]
        pool, before = self._before_write(kind, name)
        gone = await super().delete_namespaced_custom_object(*where, body=body, **more)
        self._after_write(pool, before)
        return gone

    def _before_write(self, kind: Kind, name: str) -> tuple[str | None, set[str]]:
        stored = self.objects[Kind.SLICE].get(name) if kind is Kind.SLICE else None
        pool = stored and (stored["metadata"].get("labels") or {}).get(POOL_LABEL)
        return pool, set(self.members(pool)) if pool else set()

    def _after_write(self, pool: str | None, before: set[str]) -> None:
        if pool is None:
            return
        self.truth.advance(now())
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
        self.truth.look()
        return None if (pool, node) in self.truth.released else "the brake holds"
