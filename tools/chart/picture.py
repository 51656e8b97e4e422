"""Draw the dashboard as SVG, for the docs, from the query results of a Prometheus.

`python -m chart.picture http://127.0.0.1:9090 NAMESPACE FROM TO > docs/how-to/dashboard.svg`, times in Unix seconds.
The picture has Grafana's panels in Grafana's places, drawn plainly.
"""

import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from chart.__main__ import CHART

_UNIT_X, _UNIT_Y, _GAP = 50, 34, 4
_COLOURS: Final = ("#5794f2", "#ff9830", "#73bf69", "#f2495c", "#b877d9", "#fade2a", "#8ab8ff", "#ffb357")
_POINTS: Final = 200
_LEGEND: Final = 4
"""Series named below a panel, at most."""

Series = tuple[str, list[tuple[float, float]]]
"""Name, and points of time and value."""


def answers(server: str, query: str, legend: str, start: float, end: float) -> list[Series]:
    """Return the series of one query. Raises OSError."""
    words = {"query": query, "start": start, "end": end, "step": (end - start) / _POINTS}
    with urllib.request.urlopen(f"{server}/api/v1/query_range?{urllib.parse.urlencode(words)}") as answer:  # noqa: S310
        found = json.load(answer)["data"]["result"]
    return [
        (_name(legend, one["metric"]), [(at, float(value)) for at, value in one["values"] if value != "NaN"])
        for one in found
    ]


def picture(
    panels: Sequence[Mapping[str, Any]], found: Mapping[int, Sequence[Series]], start: float, end: float
) -> str:
    """Return the SVG of the whole dashboard."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * _UNIT_Y
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{24 * _UNIT_X}" height="{height}" font-family="sans-serif">'
    parts = [head, '<rect width="100%" height="100%" fill="#111217"/>']
    for panel in panels:
        parts += _panel(panel, found[panel["id"]], start, end)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Mapping[str, Any], found: Sequence[Series], start: float, end: float) -> Iterator[str]:
    at = panel["gridPos"]
    x, y = at["x"] * _UNIT_X + _GAP, at["y"] * _UNIT_Y + _GAP
    width, height = at["w"] * _UNIT_X - 2 * _GAP, at["h"] * _UNIT_Y - 2 * _GAP
    yield f'<g transform="translate({x},{y})"><rect width="{width}" height="{height}" rx="3" fill="#181b1f"/>'
    yield f'<text x="8" y="18" font-size="13" fill="#ccccdc">{escape(panel["title"])}</text>'
    if panel["type"] == "stat":
        last = found[0][1][-1][1] if found else float("nan")
        place = f'x="{width / 2}" y="{height - 30}" text-anchor="middle"'
        yield f'<text {place} font-size="40" fill="#73bf69">{last:.3g}</text>'
    else:
        yield from _lines(found, (start, end), width, height, panel["fieldConfig"]["defaults"]["unit"])
    yield "</g>"


def _lines(found: Sequence[Series], span: tuple[float, float], width: float, height: float, unit: str) -> Iterator[str]:
    left, top, right, bottom = 46.0, 30.0, width - 10, height - 46
    most = max((value for _, points in found for _, value in points), default=1.0) or 1.0
    for share in (0.0, 0.5, 1.0):
        level = bottom - share * (bottom - top)
        yield f'<path d="M{left},{level:.1f}H{right}" stroke="#2c3235"/>'
        text = f"{share * most:.3g}{' s' if unit == 's' else '/s' if unit == 'ops' else ''}"
        yield f'<text x="{left - 4}" y="{level + 4:.1f}" font-size="10" fill="#8e8e8e" text-anchor="end">{text}</text>'
    scale = (right - left) / (span[1] - span[0])
    for number, (name, points) in enumerate(found):
        colour = _COLOURS[number % len(_COLOURS)]
        places = (
            f"{left + (at - span[0]) * scale:.1f},{bottom - value / most * (bottom - top):.1f}" for at, value in points
        )
        yield f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        if number < _LEGEND:
            place = f'x="{8 + number % 2 * width / 2}" y="{height - 24 + number // 2 * 15}"'
            yield f'<text {place} font-size="11" fill="{colour}">{escape(name)}</text>'


def _name(legend: str, labels: Mapping[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend


def main(server: str, namespace: str, start: str, end: str) -> int:
    """Query and draw."""
    panels = json.loads((CHART / "files/dashboard.json").read_text())["panels"]
    span = (float(start), float(end))
    found = {
        panel["id"]: [
            series
            for target in panel["targets"]
            for series in answers(
                server, target["expr"].replace("$namespace", namespace), target["legendFormat"], *span
            )
        ]
        for panel in panels
    }
    print(picture(panels, found, *span), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
