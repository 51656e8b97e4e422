"""Kubernetes as a target: slices and status of pools, conditions of nodes, pools of generators."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from hotpool.controllers.context import ControllerContext
from hotpool.controllers.generator import GeneratorController
from hotpool.controllers.node import NodeController
from hotpool.controllers.pool import PoolController
from hotpool.controllers.result import Result
from hotpool.core.model import Key, Kind
from hotpool.errors import FencedError, NotLeaderError, RejectedError, StaleError, UnavailableError
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.reader import Reader


class KubernetesTarget:
    """Slices, statuses and conditions of one fleet."""

    name: Final = "kubernetes"
    concurrency: Final[Mapping[Kind, int]] = {Kind.POOL: 16, Kind.GENERATOR: 4, Kind.NODE: 8}
    drift_seconds: Final[float | None] = None
    """The resync of the cache finds what others changed."""

    def __init__(self, context: ControllerContext, reader: Reader) -> None:
        self._context = context
        self._reader = reader
        self._controllers: Mapping[Kind, PoolController | GeneratorController | NodeController] = {
            Kind.POOL: PoolController(context),
            Kind.GENERATOR: GeneratorController(context),
            Kind.NODE: NodeController(context),
        }

    async def connect(self) -> Collection[Key]:
        """Ask whether the API server responds. Raises UnavailableError."""
        try:
            await self._reader.ping()
        except ApiUnavailable as error:
            raise UnavailableError(str(error)) from None
        return ()

    async def reconcile(self, key: Key) -> Result:
        """Reconcile one key. An object that a write found changed is read again first."""
        controller = self._controllers[key.kind]
        try:
            result = await controller.reconcile(key.name)
        except (NotLeaderError, FencedError):
            raise
        except Exception as error:  # noqa: BLE001 - noted and retried; the responses so far must not be lost
            result = Result(error=error)
            if isinstance(error, StaleError):
                await self._context.refresh(error.kind, error.name)
                controller.reset_pacing(key.name)
        if isinstance(result.error, RejectedError):
            self._context.recorder.write_rejected(key, str(result.error))
        return replace(result, dirty=self._take_dirty())

    async def check_drift(self, settled: Callable[[], bool]) -> Collection[Key]:
        """Return nothing."""
        del settled
        return ()

    def _take_dirty(self) -> Collection[Key]:
        taken = frozenset(self._context.dirty)
        self._context.dirty.clear()
        return taken
