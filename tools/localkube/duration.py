"""Parse durations as Go writes them: ``90s`` or ``1m30s``.

Must not accept a number without its unit, as kind does not.
"""

import re

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|h|m|s)"


def parse_duration(text: str) -> float:
    """Return seconds."""
    if text == "0":
        return 0.0
    if not re.fullmatch(f"(?:{_PART})+", text):
        raise ValueError(f"not a duration: {text!r} (write for example 90s or 5m)")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
