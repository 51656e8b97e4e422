"""Messages for a person, in kind's style.

Its job: write progress to stderr. Called by: every module that has something to tell.
It must not: write to stdout, which belongs to data.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Console:
    """Where messages go; silent with ``--quiet``."""

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
