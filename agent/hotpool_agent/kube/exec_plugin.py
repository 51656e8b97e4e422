"""Exec plugins of a kubeconfig, programs that return a credential (requirements A12, B9). Blocking I/O.

The client's own runner waits without a limit, and only logs why a plugin failed.
"""

import json
import os
import signal
import subprocess
from contextlib import suppress
from typing import Any, Final

from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.exec_provider import ExecProvider

from hotpool_agent.untrusted_text import parse_json, readable

PLUGIN_SECONDS: Final = 15.0
_KILL_SECONDS: Final = 1.0
_SHOWN: Final = 300


class PluginError(Exception):
    """The plugin returned no credential; the message names it and has its own error."""


def run_plugin(config: Any) -> dict[str, Any]:
    """Run the plugin of a user's `exec` entry. Return the status of its ExecCredential. Raises PluginError."""
    try:
        provider = ExecProvider(config)
        output = _output(provider)
        status = parse_json(output)["status"]
    except (ConfigException, OSError, ValueError, LookupError, TypeError) as error:
        raise PluginError(f"exec plugin: {readable(str(error), _SHOWN)}") from error
    if not isinstance(status, dict):
        raise PluginError(f"exec plugin {provider.args[0]}: its output has no status")
    return status


def _output(provider: ExecProvider) -> bytes:
    info = {"apiVersion": provider.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    # A session of its own, so that its children end with it.
    process = subprocess.Popen(  # noqa: S603 - the kubeconfig names the program
        provider.args,
        env=provider.env | {"KUBERNETES_EXEC_INFO": json.dumps(info)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=PLUGIN_SECONDS)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise PluginError(f"exec plugin {provider.args[0]}: no credential within {PLUGIN_SECONDS:g} s") from error
    if process.returncode:
        reason = readable(errors.decode(errors="replace").strip()[-_SHOWN:], _SHOWN)
        raise PluginError(f"exec plugin {provider.args[0]}: exit code {process.returncode}: {reason}")
    return output


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the plugin and its children. Does not wait for one that the kernel cannot end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_SECONDS)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
