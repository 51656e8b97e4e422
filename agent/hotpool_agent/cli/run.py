"""Options of `hotpool-agent run`. Must stay quick to import for `--help`: the agent is in `foreground`."""

from pathlib import Path
from typing import Any, Final

import click

from hotpool.api.names import MAX_INTERVAL_SECONDS
from hotpool.common import exit_codes
from hotpool.common.cli_help import command
from hotpool_agent.cli.common import node_option
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
        ("HOTPOOL_AGENT_ADVERTISE", "IP addresses of this machine for clients, in place of those in the catalogue."),
        ("HOTPOOL_AGENT_POD_IPS", "In a pod: status.podIPs, the addresses for clients."),
        ("HOTPOOL_AGENT_HOST_NETWORK", "In a pod: true for one in the network of its Node."),
        ("HOTPOOL_AGENT_HOST_IPS", "In such a pod: status.hostIPs, the addresses for clients."),
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
        ("~/.kube/config", "The kubeconfig, unless another one is given. Without one, a pod uses its service account."),
    ),
    examples={
        "The agent of node edge-017": "hotpool-agent run --catalogue node.yaml --node edge-017 -n speech",
        "In a pod, with HOTPOOL_AGENT_NODE: pods as services": "hotpool-agent run --pod-namespaces speech,llm",
        "A second node on the same machine": "hotpool-agent run --catalogue b.yaml --node b --listen 127.0.0.1:0",
        "Reload its catalogue": "kill -HUP $(cat ~/.local/state/hotpool-agent/edge-017/lock)",
    },
)


@command(_HELP)
@click.option(
    "--catalogue",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The node's services, YAML. Optional with --pod-namespaces.",
)
@node_option
@click.option("--namespace", "-n", help="Namespace of the fleet.")
@click.option("--kubeconfig", metavar="FILE", help="Default: $KUBECONFIG, else as kubectl.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option(
    "--interval", type=click.IntRange(1, MAX_INTERVAL_SECONDS), help="Seconds between heartbeats; default 15."
)
@click.option("--debounce", type=click.FloatRange(0), help="Seconds to hold back a gain; default 2.")
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="Serves /healthz, /readyz and /metrics. Port 0: any free one. Default: 127.0.0.1:9810.",
)
@click.option(
    "--pod-namespaces",
    metavar="A,B",
    help="Report pods with a label hotpool.dev/type in these namespaces, too.",
)
def run(**options: Any) -> None:
    """Run the agent in the foreground, until SIGTERM or Ctrl-C.

    The agent starts and probes the services of the catalogue, writes its report to the node's NodeCapability, and
    renews the node's Lease. On shutdown it reports that it is leaving, then stops the services. SIGHUP reloads the
    catalogue. Logs go to standard error: text on a terminal, else JSON.
    """
    from hotpool_agent.cli import foreground

    foreground.run(**options)
