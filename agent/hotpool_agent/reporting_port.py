"""The reporter as seen by the parts whose state it reports."""

from typing import Protocol


class Reporting(Protocol):
    """Reports of the node."""

    def changed(self) -> None:
        """Note that the report may differ. Cheap: many calls cause one comparison."""

    async def wait_withdrawn(self, service: str) -> None:
        """Return when neither the accepted report nor one in flight offers the service (requirement A9)."""
