"""Exec plugins of a kubeconfig, programs that return a credential, as kubectl runs them (B9, F5). Blocking I/O.

The client's own runner waits without a limit, and only logs why a plugin failed.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

PLUGIN_SECONDS: Final = 15.0
"""Time limit, except for a plugin that asks a person."""
_KILL_SECONDS: Final = 1.0
_SHOWN: Final = 300
_GROUP: Final = "client.authentication.k8s.io/"
_VERSIONS: Final = (f"{_GROUP}v1", f"{_GROUP}v1beta1")
_MODES: Final = ("", "Never", "IfAvailable", "Always")

Json = Mapping[str, Any]


class PluginError(Exception):
    """The plugin returned no credential; the message names it and has its own error."""


@dataclass(frozen=True, slots=True)
class ExecCredential:
    """Credential that a plugin returned. `certificate`: certificate and key (PEM). `expires`: None if not stated."""

    token: str | None
    certificate: tuple[str, str] | None
    expires: datetime | None


def run_plugin(config: Json, folder: Path, cluster: Json, *, interactive: bool) -> ExecCredential:
    """Run the plugin of a user's `exec` entry and return its credential. Raises PluginError.

    `folder`: that of the kubeconfig, which a relative path of the program refers to. `cluster`: for plugins that ask
    for it. `interactive`: a person started this program, and may answer at its terminal if it has one.
    """
    name = str(config.get("command") or "")
    try:
        return _run(config, folder, cluster, interactive=interactive)
    except FileNotFoundError as error:
        hint = f"; {config['installHint']}" if config.get("installHint") else ""
        raise PluginError(f"exec plugin {name}: no such program: {error.filename}{_readable(hint)}") from error
    except OSError as error:
        raise PluginError(f"exec plugin {name}: {error.strerror}") from error
    except PluginError as error:
        raise PluginError(f"exec plugin {name}: {error}") from error.__cause__


def _run(config: Json, folder: Path, cluster: Json, *, interactive: bool) -> ExecCredential:
    version, mode = str(config.get("apiVersion") or ""), str(config.get("interactiveMode") or "")
    if not config.get("command"):
        raise PluginError("the kubeconfig's exec entry has no command")
    if version not in _VERSIONS:
        raise PluginError(f"apiVersion {version or 'is missing'}: use {' or '.join(_VERSIONS)}")
    if mode not in _MODES:
        raise PluginError(f"interactiveMode {mode}: use Never, IfAvailable or Always")
    at_terminal = interactive and mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not at_terminal:
        raise PluginError("it asks a person, and there is no terminal (interactiveMode: Always)")
    spec: dict[str, Any] = {"interactive": at_terminal}
    if config.get("provideClusterInfo"):
        spec["cluster"] = cluster
    info = {"kind": "ExecCredential", "apiVersion": version, "spec": spec}
    environment = os.environ | _variables(config) | {"KUBERNETES_EXEC_INFO": json.dumps(info)}
    return _credential(_output(_words(config, folder), environment, at_terminal=at_terminal), version)


def _words(config: Json, folder: Path) -> list[str]:
    program = str(config["command"])
    arguments = config.get("args") or []
    return [str(folder / program) if os.sep in program else program, *(str(word) for word in arguments)]


def _variables(config: Json) -> dict[str, str]:
    try:
        return {str(item["name"]): str(item.get("value") or "") for item in config.get("env") or []}
    except (KeyError, TypeError, AttributeError):
        raise PluginError("each item of env needs name and value") from None


def _output(words: list[str], environment: Mapping[str, str], *, at_terminal: bool) -> bytes:
    """Return standard output. At a terminal the plugin has it for itself, without a time limit."""
    # Otherwise it has a session of its own, so that its children end with it.
    process = subprocess.Popen(  # noqa: S603 - the kubeconfig names the program
        words,
        env=environment,
        stdin=None if at_terminal else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if at_terminal else subprocess.PIPE,
        start_new_session=not at_terminal,
    )
    try:
        output, errors = process.communicate(timeout=None if at_terminal else PLUGIN_SECONDS)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise PluginError(f"no credential within {PLUGIN_SECONDS:g} s") from error
    if process.returncode:
        reason = _readable((errors or b"").decode(errors="replace").strip()[-_SHOWN:])
        raise PluginError(f"exit code {process.returncode}{': ' if reason else ''}{reason}")
    return output


def _credential(output: bytes, version: str) -> ExecCredential:
    try:
        answer = json.loads(output)
        status, kind, found = answer["status"], answer.get("kind"), answer.get("apiVersion")
        token, pair = status.get("token"), (status.get("clientCertificateData"), status.get("clientKeyData"))
        expires = status.get("expirationTimestamp")
        until = datetime.fromisoformat(expires).astimezone(UTC) if expires else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PluginError(f"its output is not an ExecCredential with a status: {_readable(str(error))}") from error
    if (kind, found) != ("ExecCredential", version):
        raise PluginError(f"it returned {_readable(f'{kind} {found}')}, and the kubeconfig wants {version}")
    if any(value is not None and not isinstance(value, str) for value in (token, *pair)):
        raise PluginError("its token or certificate is not text")
    certificate, key = pair
    if bool(certificate) != bool(key):
        raise PluginError("it returned a certificate without its key, or a key without its certificate")
    if not token and not certificate:
        raise PluginError("its output has neither a token nor a certificate with its key")
    return ExecCredential(token, (certificate, key) if certificate and key else None, until)


def _readable(text: str) -> str:
    """Return foreign text in one short line."""
    return " ".join(text.encode(errors="replace").decode().replace("\0", "\ufffd").split())[:_SHOWN]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the plugin and its children. Does not wait for one that the kernel cannot end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_SECONDS)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
