"""All benchmarks of one run, one after the other; about half an hour. `make bench`, or `ARGS="--only scale"`."""

import importlib
import sys
from typing import Final

from localfleet.metrics_reader import show, wanted
from localfleet.signals import unwind_on_signals

PARTS: Final = ("hotplug", "endpointslice", "failover", "scale", "agent", "lookup", "rebuild", "startup")


def main() -> None:
    """Measure and print."""
    asked = wanted(__doc__, PARTS)
    unwind_on_signals()
    figures: dict[str, float] = {}
    for part in asked.parts:
        sys.stderr.write(f"{part} ...\n")
        figures |= importlib.import_module(f"tests.bench.{part}").measure()
    show(figures, asked.path)


if __name__ == "__main__":
    main()
