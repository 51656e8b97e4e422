"""Run of the agent in the foreground: settings, catalogue and logs, and failures as exit codes.

The module imports everything that a running agent needs. A later import could fail: the disk may be full, or an upgrade
may have replaced the files of this version.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hotpool.common import exit_codes
from hotpool.common.health_server import ListenError
from hotpool.common.kubeconfig import Target, TargetError
from hotpool_agent import logging_setup
from hotpool_agent.app import Options, run_agent
from hotpool_agent.catalogue.loader import CatalogueError, empty_catalogue, read_catalogue
from hotpool_agent.cli.common import exit_with_error
from hotpool_agent.node_name import NodeNameError, node_name
from hotpool_agent.paths import PathError
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StoreError


def run(
    *,
    catalogue: Path | None,
    node: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    **settings: Any,
) -> None:
    """Run the agent until SIGTERM or SIGINT. `settings`: options; None where one was not given."""
    logging_setup.configure()
    validated = _settings(settings)
    if catalogue is None and not validated.pod_namespaces:
        exit_with_error("nothing to report: give --catalogue, or --pod-namespaces, or both", exit_codes.USAGE)
    try:
        options = Options(
            catalogue=read_catalogue(catalogue) if catalogue else empty_catalogue(),
            source=catalogue,
            node=node_name(node),
            target=Target(kubeconfig, context, namespace),
            settings=validated,
        )
        code = asyncio.run(run_agent(options))
    except TargetError as error:
        exit_with_error(" ".join(str(error).split()), exit_codes.USAGE)
    except (CatalogueError, NodeNameError, PathError) as error:
        exit_with_error(str(error), exit_codes.USAGE)
    except StoreError as error:
        exit_with_error(str(error), exit_codes.FAILED)
    except ListenError as error:
        hint = "127.0.0.1:0 takes any free port, which `hotpool-agent status` shows"
        exit_with_error(f"{error} or HOTPOOL_AGENT_LISTEN; {hint}", exit_codes.FAILED)
    except OSError as error:
        exit_with_error(f"{error.strerror}: {error.filename}" if error.filename else str(error), exit_codes.FAILED)
    if code:
        sys.exit(code)


def _settings(settings: dict[str, Any]) -> Settings:
    """Return the settings of options and environment; end the command if one is invalid."""
    options = {name: value for name, value in settings.items() if value is not None}
    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = f"--{name.replace('_', '-')}" if name in options else f"HOTPOOL_AGENT_{name.upper()}"
        exit_with_error(
            f"{where}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})", exit_codes.USAGE
        )
