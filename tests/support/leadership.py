"""Leadership that a test decides."""

from dataclasses import dataclass


@dataclass
class FixedLeadership:
    """Leadership that lasts until the test ends it."""

    term: int = 1
    leading: bool = True
    longest_reservation: float = 0.0

    def may_write(self) -> bool:
        """Return True until the test ends it."""
        return self.leading

    def note_reservation(self, seconds: float) -> None:
        """Remember the longest reservation."""
        self.longest_reservation = max(self.longest_reservation, seconds)

    async def raise_term(self, term: int) -> None:
        """Raise the term."""
        self.term = max(self.term, term)
