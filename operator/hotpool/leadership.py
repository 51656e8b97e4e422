"""Leadership of this process, as writers see it."""

from typing import Protocol


class Leadership(Protocol):
    """Right of this process to write, and the term that fences its writes."""

    @property
    def term(self) -> int:
        """Number of this leadership: larger than that of all former ones; 0 before the first."""

    def may_write(self) -> bool:
        """Return True if leadership lasts for at least one more write."""

    async def raise_term(self, term: int) -> None:
        """Raise the term to at least `term`, and store it before the next write. Raises RetryableError."""
