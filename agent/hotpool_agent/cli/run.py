"""Options of `hotpool-agent run`. Must stay quick to import for `--help`: the agent is in `foreground`."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hotpool.api.names import MAX_INTERVAL_SECONDS
from hotpool.common import exit_codes
from hotpool.common.cli_help import command
from hotpool_agent.cli.common import NodeOption
from hotpool_agent.cli.help import ENVIRONMENT, LOGS, SOCKET, AgentHelp

_HELP: Final = AgentHelp(
    codes={
        exit_codes.OK: "orderly shutdown after SIGTERM, SIGINT or Ctrl-C",
        exit_codes.FAILED: "another agent of this node, the --listen port is taken, or an unusable state folder",
        exit_codes.USAGE: "wrong usage, a catalogue with errors, no usable kubeconfig, or not on Linux",
        exit_codes.INTERRUPTED: "a second Ctrl-C killed the services; a second SIGTERM: 143",
    },
    environment=(
        *ENVIRONMENT,
        ("HOTPOOL_AGENT_INTERVAL", "As --interval."),
        ("HOTPOOL_AGENT_DEBOUNCE", "As --debounce."),
        ("HOTPOOL_AGENT_LISTEN", "As --listen."),
        ("HOTPOOL_AGENT_POD_NAMESPACES", "As --pod-namespaces."),
        ("HOTPOOL_AGENT_REFRESH_SECONDS", "Interval at which the whole report is written again; 300."),
        ("HOTPOOL_AGENT_REQUEST_SECONDS", "Timeout of a request to the API server; 5."),
        ("HOTPOOL_AGENT_BACKOFF_SECONDS", "First pause before a reconnection, doubled up to --interval; 1."),
        ("HOTPOOL_AGENT_ANNOUNCE_SECONDS", "Longest wait of a stop for its report to be accepted; 5."),
        ("HOTPOOL_AGENT_STOP_SECONDS", "Time from SIGTERM to SIGKILL of a service; 10."),
        ("HOTPOOL_AGENT_RESTART_SECONDS", "First pause before a crashed service is started again, then doubled; 1."),
        ("HOTPOOL_AGENT_RESTART_LIMIT_SECONDS", "Longest such pause; 60."),
        ("HOTPOOL_AGENT_FLAP_HALF_LIFE_SECONDS", "Time in which the penalty of a flapping service halves; 60."),
        ("KUBECONFIG", "As --kubeconfig; may be a list of files, as for kubectl."),
    ),
    files=(
        ("STATE/NODE/state.json", "Identity, desired states and running processes; survives restarts."),
        SOCKET,
        LOGS,
        ("~/.kube/config", "The kubeconfig, unless another one is given or the agent runs in a pod."),
    ),
    examples={
        "The agent of node edge-017": "hotpool-agent run --catalogue node.yaml --node edge-017 -n speech",
        "In a pod, with HOTPOOL_AGENT_NODE: pods as services": "hotpool-agent run --pod-namespaces speech,llm",
        "A second node on the same machine": "hotpool-agent run --catalogue b.yaml --node b --listen 127.0.0.1:0",
        "Reload its catalogue": "kill -HUP $(cat ~/.local/state/hotpool-agent/edge-017/lock)",
    },
)

app: Final = typer.Typer(rich_markup_mode=None)


@app.command(cls=command(_HELP))
def run(
    *,
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The node's services, YAML. Optional with --pod-namespaces."),
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
    debounce: Annotated[float | None, typer.Option(min=0, help="Seconds to hold back a gain; default 2.")] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS:PORT",
            help="Serves /healthz, /readyz and /metrics. Port 0: any free one. Default: 127.0.0.1:9810.",
        ),
    ] = None,
    pod_namespaces: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Report pods with a label hotpool.dev/type in these namespaces, too."),
    ] = None,
) -> None:
    """Run the agent in the foreground, until SIGTERM or Ctrl-C.

    The agent starts and probes the services of the catalogue, writes its report to the node's NodeCapability, and
    renews the node's Lease. On shutdown it reports that it is leaving, then stops the services. SIGHUP reloads the
    catalogue. Logs go to standard error: text on a terminal, else JSON.
    """
    from hotpool_agent.cli import foreground

    foreground.run(
        catalogue=catalogue,
        node=node,
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace,
        interval=interval,
        debounce=debounce,
        listen=listen,
        pod_namespaces=pod_namespaces,
    )
