"""`hotpool-agent run`: its options. Must stay quick to import, for its `--help`: the agent is in `foreground`."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hotpool.api.names import MAX_INTERVAL_SECONDS
from hotpool_agent.cli import help_sections as m
from hotpool_agent.cli.common import NodeOption

_RUN: Final = m.HelpSections(
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

app: Final = typer.Typer(rich_markup_mode=None)


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
