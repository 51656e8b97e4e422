"""Number of requests in progress, read from a service itself (requirements B5, C5). Parsing is pure."""

import json
import math
import re
from typing import Any, Final

from hotpool_agent.catalogue.model import InFlight, Probe
from hotpool_agent.probes.prober import Prober

_SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{.*\})?\s+(?P<value>\S+)(?:\s+-?\d+)?\s*")
_MAX: Final = 2**31 - 1


async def read_in_flight(prober: Prober, source: InFlight, port: int | None) -> int | None:
    """Return the number, or None if the service does not give a valid one within the time-out. Never raises."""
    probe = Probe(http=source.http).model_copy(update={"timeout_seconds": source.timeout_seconds})
    result = await prober.probe(probe, port)
    return parse_in_flight(source, result.body) if result.ok else None


def parse_in_flight(source: InFlight, body: str) -> int | None:
    """Return the number in the response of a service, rounded up, or None without a valid one."""
    value = metric_sum(body, source.metric) if source.metric else _at_path(body, source.json_path or "")
    return math.ceil(value) if value is not None and 0 <= value <= _MAX else None


def metric_sum(text: str, name: str) -> float | None:
    """Return the sum of all samples of a metric in Prometheus' text format, or None without a sample."""
    found = [
        match["value"] for line in text.splitlines() if (match := _SAMPLE.fullmatch(line)) and match["name"] == name
    ]
    try:
        return sum(map(float, found)) if found else None
    except ValueError:
        return None


def _at_path(text: str, path: str) -> float | None:
    """Return the number at a path such as .a.b of a JSON document, or None."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for key in path.removeprefix(".").split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
