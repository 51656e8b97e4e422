"""Evaluation of the chart's alerts by Prometheus itself, over invented series.

The Go program beside this file is built once per version of it, into the cache folder.
"""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from localkube import golang
from localkube.console import Console
from localkube.locks import locked
from localkube.paths import cache_folder

_MODULE: Final = Path(__file__).parent
_FLAGS: Final = ("-trimpath", "-ldflags", "-s -w")


class Scenario(NamedTuple):
    """Series of some minutes."""

    series: Mapping[str, str]
    """Series, such as `up{job="a"}` → one sample a minute in the notation of promtool, such as `1x10 0x5`."""
    minutes: int


class Alert(NamedTuple):
    """A firing alert."""

    name: str
    labels: Mapping[str, str]
    summary: str


def program(console: Console) -> Path:
    """Return the path of the program, built first if it is missing. Raises CalledProcessError."""
    digest = hashlib.sha256(" ".join([sys.platform, platform.machine(), *_FLAGS]).encode())
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((_MODULE / name).read_bytes())
    target = cache_folder() / "programs" / f"alertcheck-{digest.hexdigest()[:12]}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f"{target.name}.lock")
    with locked(lock, lock.touch, lambda: console.say(" • Waiting for another build of the check of alerts ...")):
        if not target.exists():
            with console.step("Building the check of alerts, about a minute with an empty Go cache"):
                _build(target)
    return target


def _build(target: Path) -> None:
    """Build beside the target, then rename: a killed build leaves nothing that looks finished."""
    declared = next(line for line in (_MODULE / "go.mod").read_text().splitlines() if line.startswith("go "))
    go = golang.find_go(golang.parse_version(declared.removeprefix("go ")), Console())
    part = target.with_name(f"{target.name}.part")
    subprocess.run([str(go), "build", *_FLAGS, "-o", str(part), "."], cwd=_MODULE, env=golang.environment(), check=True)
    part.rename(target)


def firing(groups: Sequence[Mapping[str, Any]], scenarios: Sequence[Scenario], folder: Path) -> list[list[Alert]]:
    """Return the alerts that fire at the end of each scenario. `groups`: of a PrometheusRule. `folder`: for its file.

    Raises CalledProcessError for an invalid rule or series.
    """
    rules = folder / "rules.yaml"
    rules.write_text(json.dumps({"groups": groups}))
    given = {"rules": str(rules), "scenarios": [scenario._asdict() for scenario in scenarios]}
    done = subprocess.run([program(Console())], input=json.dumps(given), stdout=subprocess.PIPE, text=True, check=True)
    return [[_alert(one) for one in alerts or ()] for alerts in json.loads(done.stdout)]


def _alert(found: Mapping[str, Mapping[str, str]]) -> Alert:
    labels = {name: value for name, value in found["labels"].items() if name != "alertname"}
    return Alert(found["labels"]["alertname"], labels, found["annotations"].get("summary", ""))
