"""What people type: `hotpool-agent run|start|stop|status`.

Called by `__main__`. Turns words into calls and outcomes into exit codes (0 ok, 1 failed, 2 usage or catalogue, 3 no
agent runs); must not hold rules of its own.
"""

import asyncio
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from pydantic import ValidationError

from hotpool.api.meta import MAX_INTERVAL_SECONDS
from hotpool_agent import control
from hotpool_agent.paths import PathError, socket_path, state_folder
from hotpool_agent.settings import NodeNameError, Settings, node_name

FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3

app = typer.Typer(
    name="hotpool-agent",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Runs or watches the services of one node and reports what the node can do right now.",
)

NodeOption = Annotated[
    str | None, typer.Option("--node", metavar="NAME", help="Name of the node. Default: the host name, in lower case.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once, not when the state is reached.")]
ServiceId = Annotated[str, typer.Argument(metavar="ID", help="Service id in the catalogue.")]


class Output(StrEnum):
    """How `status` prints."""

    TABLE = "table"
    JSON = "json"


@app.command(
    epilog="Example: hotpool-agent run --catalogue node.yaml --node edge-017 -n speech",
    help="Run the agent in the foreground until SIGTERM or Ctrl-C, which stops the services and says so first.",
)
def run(
    *,
    catalogue: Annotated[Path, typer.Option(metavar="FILE", help="The node's services, YAML.")],
    node: NodeOption = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace of the fleet.")] = None,
    kubeconfig: Annotated[
        str | None, typer.Option(metavar="FILE", help="Default: $KUBECONFIG, else as kubectl.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    interval: Annotated[
        int | None, typer.Option(min=1, max=MAX_INTERVAL_SECONDS, help="Seconds between heartbeats; default 15.")
    ] = None,
    debounce: Annotated[float | None, typer.Option(min=0, help="Seconds that a gain may wait; default 2.")] = None,
) -> None:
    """Run the agent in the foreground."""
    # Here, not above: importing kubernetes takes as long as ten of the other commands.
    from hotpool_agent.agent import Options, run_agent  # noqa: PLC0415
    from hotpool_agent.catalogue_file import CatalogueError, read_catalogue  # noqa: PLC0415
    from hotpool_agent.credentials import Target, TargetError  # noqa: PLC0415
    from hotpool_agent.store import StoreError  # noqa: PLC0415

    _configure_logs()
    settings = _settings(interval=interval, debounce=debounce)
    try:
        options = Options(
            catalogue=read_catalogue(catalogue),
            base=catalogue.absolute().parent,
            node=node_name(node),
            target=Target(kubeconfig, context, namespace),
            settings=settings,
        )
        asyncio.run(run_agent(options))
    except (CatalogueError, NodeNameError, TargetError, PathError) as error:
        _fail(str(error), USAGE)
    except StoreError as error:
        _fail(str(error), FAILED)
    except OSError as error:
        _fail(f"{error.strerror}: {error.filename}" if error.filename else str(error), FAILED)


@app.command(
    epilog="Example: hotpool-agent start faster-whisper --node edge-017",
    help="Start a service and wait until it is Running. Starting one that runs is a success.",
)
def start(identifier: ServiceId, *, node: NodeOption = None, no_wait: NoWait = False) -> None:
    """Start a service."""
    typer.echo(_ask(node, control.Request(op="start", id=identifier, wait=not no_wait)))


@app.command(
    epilog="Example: hotpool-agent stop faster-whisper --node edge-017",
    help="Stop a service and wait until processes and port are gone. Stopping one that is stopped is a success.",
)
def stop(identifier: ServiceId, *, node: NodeOption = None, no_wait: NoWait = False) -> None:
    """Stop a service."""
    typer.echo(_ask(node, control.Request(op="stop", id=identifier, wait=not no_wait)))


@app.command(
    epilog="Example: hotpool-agent status --node edge-017 -o json",
    help="Show the services of the node, or one of them, and whether the cluster hears the agent.",
)
def status(
    identifier: Annotated[str | None, typer.Argument(metavar="[ID]", help="Service id in the catalogue.")] = None,
    *,
    node: NodeOption = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="table or json.")] = Output.TABLE,
) -> None:
    """Show the services of the node."""
    answer = _ask(node, control.Request(op="status", id=identifier))
    if output is Output.JSON:
        typer.echo(json.dumps(answer, indent=2))
    else:
        from hotpool_agent import table  # noqa: PLC0415 - rich's tables are slow to import, too

        table.show(answer)


def _ask(node: str | None, request: control.Request) -> Any:
    try:
        return control.ask(socket_path(state_folder(_settings(), node_name(node))), request)
    except control.AgentDownError as error:
        _fail(str(error), NOT_RUNNING)
    except control.RequestError as error:
        _fail(str(error), FAILED)
    except (NodeNameError, PathError) as error:
        _fail(str(error), USAGE)


def _settings(**given: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        _fail(f"HOTPOOL_AGENT_{first['loc'][0]!s}".upper() + f": {first['msg']} (got {first['input']!r})", USAGE)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def _configure_logs() -> None:
    """Structured lines on standard error: for people on a terminal, else JSON."""
    import structlog  # noqa: PLC0415 - as in `run`

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
