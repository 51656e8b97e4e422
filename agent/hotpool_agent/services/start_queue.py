"""Queue in which heavy services load one at a time, in the order of their requests (requirement A8). Pure."""

from collections.abc import Callable


class StartQueue:
    """Queue of a node's services. A service that requests again while it loads keeps its place."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {}
        self._loading: set[str] = set()

    def acquire(self, service: str, on_granted: Callable[[], None]) -> None:
        """Call `on_granted` when no other service loads, which may be at once."""
        self._waiting[service] = on_granted
        if service in self._loading:
            self._grant(service)
        else:
            self._grant_next()

    def hold(self, service: str) -> None:
        """Record that the service loads already; others wait for it."""
        self._loading.add(service)

    def release(self, service: str) -> None:
        """Remove the service from the queue. No effect if it neither waits nor loads."""
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
