"""Run all benchmarks sequentially, in about half an hour. `make bench`, or `ARGS="--only scale"`."""

import importlib
import sys
from typing import Final

from localfleet.metrics_reader import parse_options, show
from localfleet.signals import unwind_on_signals

PARTS: Final = (
    "hotplug",
    "endpointslice",
    "failover",
    "scale",
    "agent",
    "lookup",
    "pick_endpoints",
    "capacity",
    "waiting",
    "blackhole",
    "rebuild",
    "startup",
)


def main() -> None:
    """Measure and print the figures."""
    options = parse_options(__doc__, PARTS)
    unwind_on_signals()
    figures: dict[str, float] = {}
    for part in options.parts:
        sys.stderr.write(f"{part} ...\n")
        figures |= importlib.import_module(f"benchmarks.{part}").measure()
    show(figures, options.path)


if __name__ == "__main__":
    main()
