"""What the benchmarks share: their command line, percentiles, and how figures are shown.

Used by the scripts in tests/bench. Must not measure anything.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def json_file(description: str | None) -> Path | None:
    """Read the command line; where the figures shall also be written."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    found: Path | None = parser.parse_args().json
    return found


def percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile."""
    cuts = statistics.quantiles(values, n=100)
    return {f"{name}_p50": round(cuts[49], 2), f"{name}_p99": round(cuts[98], 2)}


def show(figures: Mapping[str, float], path: Path | None) -> None:
    """Print the table; write the flat object."""
    width = max(map(len, figures))
    for name, value in figures.items():
        sys.stdout.write(f"{name:{width}} {value:12.3f}\n")
    if path:
        path.write_text(json.dumps(figures) + "\n", encoding="utf-8")
