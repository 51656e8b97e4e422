"""One heavy service loads at a time, in the order of asking (requirement A8). Pure.

Shared by the services of a node. Who asks and when a turn is over is decided by `machine`.
"""

from collections.abc import Callable


class StartQueue:
    """A queue of services. A service that asks while it has the turn keeps it."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {}
        self._loading: set[str] = set()

    def acquire(self, service: str, go: Callable[[], None]) -> None:
        """Call `go` when it is the service's turn, which may be at once."""
        self._waiting[service] = go
        if service in self._loading:
            self._grant(service)
        else:
            self._grant_next()

    def hold(self, service: str) -> None:
        """The service loads already: others wait for it."""
        self._loading.add(service)

    def release(self, service: str) -> None:
        """The service neither waits nor loads. It may be said at any time."""
        self._waiting.pop(service, None)
        if service in self._loading:
            self._loading.remove(service)
            self._grant_next()

    def _grant_next(self) -> None:
        if self._waiting and not self._loading:
            self._grant(next(iter(self._waiting)))

    def _grant(self, service: str) -> None:
        self._loading.add(service)
        self._waiting.pop(service)()
