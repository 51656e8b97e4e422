"""Catalogues for nodes of the local fleet, of small real HTTP services, each on its own free port."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localfleet.ports import free_port

SERVICE = Path(__file__).with_name("service.py")


def service(id_: str, type_: str, **more: Any) -> dict[str, Any]:
    """Return one supervised service of the catalogue; `more` overrides or adds fields."""
    port = free_port()
    return {
        "id": id_,
        "type": type_,
        "port": port,
        "autoStart": True,
        "preStopSeconds": 0,
        "run": {"command": [sys.executable, str(SERVICE), "--port", str(port), "--type", type_]},
        "ready": {"http": {"path": "/health"}, "periodSeconds": 0.05},
        **more,
    }


def translator(languages: Sequence[str]) -> list[dict[str, Any]]:
    """Return the services of a node that translates speech between some languages."""
    spoken = {"languages": list(languages)}
    return [
        service("whisper", "asr", attributes={**spoken, "tier": ["gold"]}),
        service("m2m100", "nmt", attributes={"rules": [{"kind": "any_to_any", "languages": list(languages)}]}),
        service("piper", "tts", attributes=spoken),
        service("repair", "semantic", attributes=spoken),
    ]


def render(services: Sequence[dict[str, Any]], **head: Any) -> str:
    """Return the catalogue as YAML (JSON is YAML); `head`: its other fields."""
    return json.dumps({"version": 1, **head, "services": list(services)}, indent=1)
