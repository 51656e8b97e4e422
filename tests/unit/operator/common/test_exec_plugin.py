"""Exec plugins of a kubeconfig, run as kubectl does (requirements B9, F5)."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hotpool.common import exec_plugin
from hotpool.common.exec_plugin import PluginError, run_plugin

V1 = "client.authentication.k8s.io/v1"
CLUSTER = {"server": "https://x", "config": None}


def answering(answer: Any) -> dict[str, Any]:
    """Return the entry of a plugin with this output."""
    return {"apiVersion": V1, "command": sys.executable, "args": ["-S", "-c", f"print({json.dumps(answer)!r})"]}


def credential(**status: Any) -> dict[str, Any]:
    return answering({"apiVersion": V1, "kind": "ExecCredential", "status": status})


def run(config: dict[str, Any], folder: Path = Path("/")) -> exec_plugin.ExecCredential:
    return run_plugin(config, folder, CLUSTER, interactive=False)


def test_a_credential_has_a_token_or_a_certificate_and_its_expiry() -> None:
    pair = {"clientCertificateData": "c", "clientKeyData": "k"}
    found = run(credential(token="t", expirationTimestamp="2026-01-01T02:00:00+02:00", **pair))  # noqa: S106
    assert (found.token, found.certificate) == ("t", ("c", "k"))
    assert found.expires
    assert found.expires.isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"apiVersion": V1}, "has no command"),
        ({"command": "x"}, "apiVersion is missing: use"),
        ({"command": "x", "apiVersion": "client.authentication.k8s.io/v1alpha1"}, "v1alpha1: use"),
        ({"command": "x", "apiVersion": V1, "interactiveMode": "Ask"}, "interactiveMode Ask: use"),
        ({"command": "x", "apiVersion": V1, "interactiveMode": "Always"}, "there is no terminal"),
        ({"command": "x", "apiVersion": V1, "env": [1]}, "each item of env"),
        (
            {"command": "no-such", "apiVersion": V1, "installHint": "install\nit"},
            "no such program: no-such; install it",
        ),
        ({"command": "/", "apiVersion": V1}, "Permission denied"),
        (answering("text"), "not an ExecCredential with a status"),
        (answering({"apiVersion": V1, "kind": "ExecCredential"}), "not an ExecCredential with a status"),
        (answering({"apiVersion": "v1", "kind": "Pod", "status": {"token": "t"}}), "it returned Pod v1, and the"),
        (credential(), "neither a token nor a certificate"),
        (credential(clientKeyData="k"), "without its key"),
        (credential(token=5), "is not text"),
        (credential(token="t", expirationTimestamp="soon"), "not an ExecCredential"),  # noqa: S106
    ],
)
def test_a_plugin_that_fails_is_named_with_the_reason_in_one_line(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(PluginError) as raised:
        run(config)
    message = str(raised.value)
    assert message.startswith(f"exec plugin {config.get('command', '')}: ")
    assert reason in message
    assert "\n" not in message


def test_a_plugin_without_an_answer_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_plugin, "PLUGIN_SECONDS", 0.2)
    config = {"apiVersion": V1, "command": "/bin/sh", "args": ["-c", "sleep 600 & wait"]}
    with pytest.raises(PluginError, match=r"exec plugin /bin/sh: no credential within 0\.2 s"):
        run(config)
