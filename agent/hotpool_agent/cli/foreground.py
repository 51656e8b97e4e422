"""The agent as a program: its settings, catalogue and logs, and its failures as exit codes.

The imports load all that a running agent needs before anything starts. Later the disk may be full, or the files of
this version replaced by those of the next.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from hotpool_agent.app import Options, run_agent
from hotpool_agent.catalogue.loader import CatalogueError, empty_catalogue, read_catalogue
from hotpool_agent.cli import help_sections as m
from hotpool_agent.cli.common import exit_with_error
from hotpool_agent.control.health_server import ListenError
from hotpool_agent.kube.credentials import Target, TargetError
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
    **given: Any,
) -> None:
    """Run the agent until SIGTERM or SIGINT. `given`: options that are settings; None where one is missing."""
    _configure_logs()
    settings = _settings(given)
    if catalogue is None and not settings.pod_namespaces:
        exit_with_error("nothing to report: give --catalogue, or --pod-namespaces, or both", m.USAGE)
    try:
        options = Options(
            catalogue=read_catalogue(catalogue) if catalogue else empty_catalogue(),
            source=catalogue,
            node=node_name(node),
            target=Target(kubeconfig, context, namespace),
            settings=settings,
        )
        asyncio.run(run_agent(options))
    except (CatalogueError, NodeNameError, TargetError, PathError) as error:
        exit_with_error(str(error), m.USAGE)
    except (StoreError, ListenError) as error:
        exit_with_error(str(error), m.FAILED)
    except OSError as error:
        exit_with_error(f"{error.strerror}: {error.filename}" if error.filename else str(error), m.FAILED)


def _settings(given: dict[str, Any]) -> Settings:
    """Return the settings of the environment and of options; end the command if one is wrong."""
    options = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = f"--{name.replace('_', '-')}" if name in options else f"HOTPOOL_AGENT_{name.upper()}"
        exit_with_error(f"{where}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})", m.USAGE)


def _configure_logs() -> None:
    """Write structured lines to standard error: for people on a terminal, else JSON."""
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=True) if terminal else structlog.processors.JSONRenderer()
    last = [] if terminal else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
