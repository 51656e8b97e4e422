"""The program `hotpool-agent`: its commands put together, and `run`, which is the agent itself.

Called by `__main__`. Turns words into calls and outcomes into exit codes; must not hold rules of its own.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hotpool.api.meta import MAX_INTERVAL_SECONDS
from hotpool_agent import __version__
from hotpool_agent.commands import check, logs, operate, show
from hotpool_agent.commands import manual as m
from hotpool_agent.commands.common import NodeOption, fail, settings_of
from hotpool_agent.paths import PathError
from hotpool_agent.settings import NodeNameError, node_name

_PROGRAM: Final = m.Manual(
    codes={
        m.OK: "success",
        m.FAILED: "the command failed; standard error says why",
        m.USAGE: "wrong usage, or a catalogue with errors",
        m.NOT_RUNNING: "no agent of this node runs",
        m.UNHEARD: "status only: the cluster does not hear the agent",
        m.UNWELL: "status only: a service has failed",
    },
    files=(m.SOCKET, m.LOGS),
    examples=(
        ("hotpool-agent run --catalogue node.yaml --node edge-017 -n speech", "Start the agent of a node"),
        ("hotpool-agent status --node edge-017", "Ask it how its services are"),
        ("hotpool-agent start --help", "What a command does, in detail"),
    ),
)
_RUN: Final = m.Manual(
    codes={
        m.OK: "SIGTERM, SIGINT or Ctrl-C ended it in order",
        m.FAILED: "an agent of this node runs already, the port of --listen is taken, or the state folder is unusable",
        m.USAGE: "wrong usage, a catalogue with errors, or no usable kubeconfig; standard error says what",
    },
    environment=(
        *m.WHERE,
        ("HOTPOOL_AGENT_INTERVAL", "As --interval."),
        ("HOTPOOL_AGENT_DEBOUNCE", "As --debounce."),
        ("HOTPOOL_AGENT_LISTEN", "As --listen."),
        ("HOTPOOL_AGENT_POD_NAMESPACES", "As --pod-namespaces."),
        ("HOTPOOL_AGENT_REFRESH_SECONDS", "The whole report is written again after this time; 300."),
        ("HOTPOOL_AGENT_REQUEST_SECONDS", "Time-out of a request to the API server; 5."),
        ("HOTPOOL_AGENT_BACKOFF_SECONDS", "First pause before a reconnection, doubled up to the interval; 1."),
        ("HOTPOOL_AGENT_ANNOUNCE_SECONDS", "How long a stop waits for its report to be accepted; 5."),
        ("HOTPOOL_AGENT_STOP_SECONDS", "From TERM to KILL; 10."),
        ("HOTPOOL_AGENT_RESTART_SECONDS", "First pause before a crashed service runs again, then doubled; 1."),
        ("HOTPOOL_AGENT_RESTART_LIMIT_SECONDS", "Longest such pause; 60."),
        ("HOTPOOL_AGENT_FLAP_HALF_LIFE_SECONDS", "In which the penalty of a flapping service halves; 60."),
        ("KUBECONFIG", "As --kubeconfig; a list of files as kubectl takes it."),
    ),
    files=(
        ("STATE/NODE/state.json", "Identity, wishes and running processes; survives restarts."),
        m.SOCKET,
        m.LOGS,
        ("~/.kube/config", "The cluster, when nothing else says it and this is no pod."),
    ),
    examples=(
        ("hotpool-agent run --catalogue node.yaml --node edge-017 -n speech", "The agent of node edge-017"),
        ("hotpool-agent run --pod-namespaces speech,llm", "In a pod, with HOTPOOL_AGENT_NODE: services are pods"),
        ("hotpool-agent run --catalogue b.yaml --node b --listen 127.0.0.1:0", "A second node on the same machine"),
        ("kill -HUP $(cat ~/.local/state/hotpool-agent/edge-017/lock)", "Have it read its catalogue again"),
    ),
)

app = typer.Typer(
    name="hotpool-agent",
    cls=m.group(_PROGRAM),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Runs or watches the services of one node and reports what the node can do right now.",
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it.
    if wanted:
        typer.echo(f"hotpool-agent {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


@app.command(cls=m.command(_RUN))
def run(
    *,
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The node's services, YAML. Can be left out with --pod-namespaces."),
    ] = None,
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
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS:PORT",
            help="Where /healthz, /readyz and /metrics are; port 0: any free one. Default: 127.0.0.1:9810.",
        ),
    ] = None,
    pod_namespaces: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Pods of this node in these namespaces with a label hotpool.dev/type, too."),
    ] = None,
) -> None:
    """Run the agent in the foreground, until SIGTERM or Ctrl-C.

    It starts and watches the services of the catalogue, reports what the node can do to its NodeCapability, and
    renews the node's Lease. Its end stops the services, and says so to the cluster first. SIGHUP has it read the
    catalogue again. Logs go to standard error: for people on a terminal, else JSON.
    """
    # Here, not above: importing kubernetes takes as long as ten of the other commands.
    from hotpool_agent.agent import Options, run_agent  # noqa: PLC0415
    from hotpool_agent.catalogue.file import CatalogueError, read_catalogue, without_file  # noqa: PLC0415
    from hotpool_agent.cluster.credentials import Target, TargetError  # noqa: PLC0415
    from hotpool_agent.local.endpoints import ListenError  # noqa: PLC0415
    from hotpool_agent.store import StoreError  # noqa: PLC0415

    _configure_logs()
    settings = settings_of(interval=interval, debounce=debounce, listen=listen, pod_namespaces=pod_namespaces)
    if catalogue is None and not settings.pod_namespaces:
        fail("nothing to report: give --catalogue, or --pod-namespaces, or both", m.USAGE)
    try:
        options = Options(
            catalogue=read_catalogue(catalogue) if catalogue else without_file(),
            source=catalogue,
            node=node_name(node),
            target=Target(kubeconfig, context, namespace),
            settings=settings,
        )
        asyncio.run(run_agent(options))
    except (CatalogueError, NodeNameError, TargetError, PathError) as error:
        fail(str(error), m.USAGE)
    except (StoreError, ListenError) as error:
        fail(str(error), m.FAILED)
    except OSError as error:
        fail(f"{error.strerror}: {error.filename}" if error.filename else str(error), m.FAILED)


for part in (operate, show, logs, check):
    part.register(app)


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
