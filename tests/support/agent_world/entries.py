"""Services of the agent's catalogue, as the model of its world has them, and values that no catalogue should have."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from localfleet.catalogue import service
from localfleet.kind import REPOSITORY

PROBE_SECONDS: Final = 1.0
WORKERS: Final = REPOSITORY / "tests" / "support" / "samples" / "workers.py"
ODD_SCALARS: Final = (
    r'"\ud83c\udfc6"',
    r'"\ud83c"',
    r'"\udfc6x"',
    r'"a\0b"',
    f'"{"x" * 2**18}"',
    "9" * 5000,
    "0x" + "f" * 200,
    "-0o17",
    ".nan",
    "-.inf",
    "1e400",
    "2026-01-01T00:00:00Z",
    "~",
    "!!binary aGk=",
    "!!python/object:os.system x",
    "{1: a}",
    "{[a]: b}",
    "{~: b}",
    "&a [*a]",
    "[" * 60 + "]" * 60,
    r'"\xff\x00"',
    r'"\U00110000"',
)
"""YAML of values that are no plain text: each is refused, or reported in a way that JSON can hold."""


@dataclass
class CatalogueEntry:
    """A service of the catalogue, and its desired state."""

    port: int
    wanted: bool
    delay: float = 0.0
    heavy: bool = False
    variant: int = 0
    languages: list[str] = field(default_factory=list)
    workers: tuple[str, ...] = ()
    """Kinds of the further processes that it creates, as samples/workers.py names them."""
    hangs: str = ""
    """`program` or `workingDir`: that is on a file system that hangs."""
    frozen: Path = Path()
    """The file system that hangs."""
    left_hanging: bool = False
    """An agent was killed while the program hung: that process keeps the next one from being killed."""

    def to_catalogue(self, identifier: str, workers: Path) -> dict[str, Any]:
        """Return the entry as in the catalogue file. Each service has a type of its own.

        `workers`: folder for a file of each worker.
        """
        entry = service(identifier, f"type-{identifier}", autoStart=True, heavy=self.heavy, port=self.port)
        words = [*entry["run"]["command"][:2], "--port", str(self.port), "--start-delay", str(self.delay)]
        words += ["--type", f"v{self.variant}"]
        for kind in self.workers:
            words = [sys.executable, "-S", str(WORKERS), kind, str(workers / f"{identifier}-{kind}"), *words]
        entry["run"] = {"command": [str(self.frozen / "x")] if self.hangs == "program" else words}
        if self.hangs == "workingDir":
            entry["run"]["workingDir"] = str(self.frozen / "x")
        entry["ready"]["startSeconds"] = 8
        entry["live"] = {"periodSeconds": 0.2, "timeoutSeconds": PROBE_SECONDS, "failures": 3}
        entry["attributes"] = {"languages": self.languages}
        return entry
