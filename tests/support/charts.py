"""Charts and pods as other people have them: parent charts, and pods of rendered manifests."""

import json
from pathlib import Path
from typing import Any

from localfleet.chart import CHART


def parent_chart(folder: Path, *names: str) -> Path:
    """Write a chart that has hotpool as a dependency under each of the names, with a condition; return its folder."""
    dependencies = [
        {"name": "hotpool", "alias": name, "version": "*", "repository": "", "condition": f"{name}.enabled"}
        for name in names
    ]
    chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": dependencies}
    (folder / "charts").mkdir(parents=True)
    (folder / "charts" / "hotpool").symlink_to(CHART)
    (folder / "Chart.yaml").write_text(json.dumps(chart))
    (folder / "values.yaml").write_text("{}")
    (folder / "templates").mkdir()
    return folder


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pods of rendered objects, as their controllers would create them."""
    templates = [
        {"apiVersion": "v1", "kind": "Pod", **item["spec"]["template"]}
        | {"metadata": item["spec"]["template"]["metadata"] | {"name": item["metadata"]["name"]}}
        for item in documents
        if item["kind"] in {"Deployment", "DaemonSet"}
    ]
    return templates + [item for item in documents if item["kind"] == "Pod"]
