"""Write progress messages in kind's style to stderr.

Must not write to stdout, which belongs to data.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Console:
    """Writer of messages; silent with ``--quiet``."""

    quiet: bool = False

    def say(self, text: str) -> None:
        """Print one message."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, then its success or failure."""
        self.say(f" • {title} ...")
        try:
            yield
        except BaseException:
            self.say(f" ✗ {title}")
            raise
        self.say(f" ✓ {title}")
