"""Command line of the benchmarks, percentiles, spreads, and output of figures.

Must not measure anything.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ENDS = ("_min", "_max")


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    parts: tuple[str, ...]
    path: Path | None
    """File that the figures are also written to."""


def parse_options(description: str | None, parts: Sequence[str]) -> Options:
    """Parse the command line; without `--only` every part is selected."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--only", choices=parts, action="append", help="run this part (may be given several times)")
    options = parser.parse_args()
    return Options(tuple(part for part in parts if not options.only or part in options.only), options.json)


def percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    cuts = statistics.quantiles(values, n=100)
    return {f"{name}_p50": round(cuts[49], 2), f"{name}_p99": round(cuts[98], 2)}


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the median of several measurements, under the name itself, with the smallest and the largest."""
    ends = dict(zip(_ENDS, (min(values), max(values)), strict=True))
    return {name: round(statistics.median(values), 3), **{name + end: round(ends[end], 3) for end in _ENDS}}


def show(figures: Mapping[str, float], path: Path | None) -> None:
    """Print the table, a spread in one line; write the flat object."""
    names = [name for name in figures if not any(name.removesuffix(end) in figures for end in _ENDS if end in name)]
    width = max(map(len, names))
    sys.stdout.write(f"{'':{width}} {'':>12} {'min':>12} {'max':>12}\n")
    for name in names:
        ends = [f"{figures[name + end]:12.3f}" for end in _ENDS if name + end in figures]
        sys.stdout.write(" ".join([f"{name:{width}} {figures[name]:12.3f}", *ends]) + "\n")
    if path:
        path.write_text(json.dumps(figures) + "\n", encoding="utf-8")
