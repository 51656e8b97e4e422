"""Generate the table of values in charts/hotpool/README.md from values.schema.json and values.yaml.

`python -m chart` writes the README between its two marks. With `--check` it writes nothing and reports a difference.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[2] / "charts/hotpool"
_BEGIN, _END = "<!-- values: begin -->\n", "<!-- values: end -->\n"
_HELMS: Final = {"global", "enabled"}
"""Values that a parent chart passes."""
Row = tuple[str, str, str]
"""Name with dots, default as JSON, description."""


def rows(schema: Mapping[str, Any], values: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    """Return one row for each value. Raises KeyError, with its name, for one without default or description."""
    for name, described in schema["properties"].items():
        if not prefix and name in _HELMS:
            continue
        path = f"{prefix}{name}"
        if name not in values or "description" not in described:
            raise KeyError(f"{path} needs a default in values.yaml and a description in values.schema.json")
        if described.get("properties") and not _is_resources(described):
            yield from rows(described, values[name], f"{path}.")
        else:
            yield path, _short(values[name]), described["description"]
    if unknown := sorted(values.keys() - schema["properties"].keys()):
        raise KeyError(f"{prefix}{unknown[0]} is not in values.schema.json")


def readme(text: str) -> str:
    """Return the README with the generated table."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    lines = ["| value | default | what |", "|---|---|---|"]
    lines += [f"| `{name}` | {default} | {what} |" for name, default, what in rows(schema, values)]
    head, rest = text.split(_BEGIN)
    return head + _BEGIN + "\n" + "\n".join(lines) + "\n\n" + _END + rest.split(_END)[1]


def main(arguments: list[str]) -> int:
    """Write the README, or compare it."""
    path = CHART / "README.md"
    found = path.read_text()
    wanted = readme(found)
    if arguments == ["--check"]:
        if found != wanted:
            print(f"{path.name} of the chart is not what its values say: make chart", file=sys.stderr)
        return int(found != wanted)
    path.write_text(wanted)
    return 0


def _is_resources(described: Mapping[str, Any]) -> bool:
    return set(described["properties"]) == {"requests", "limits"}


def _short(value: Any) -> str:
    return f"`{json.dumps(value)}`" if value not in ("", [], {}) else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
