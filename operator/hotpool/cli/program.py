"""Command group `hotpool`. The module of a command is imported when the command runs: all together take 2 s."""

from typing import Final

from hotpool import __version__
from hotpool.common.lazy_commands import LazyGroup

app: Final = LazyGroup(
    "hotpool",
    {
        "operator": ("hotpool.cli.run", "Run the operator of one namespace until SIGTERM."),
        "status": (
            "hotpool.cli.status",
            "Show whether the fleet is healthy: operator, watches, Redis, nodes, pools and versions.",
        ),
        "why": ("hotpool.cli.why", "Explain why a node is in a pool or not, and what would change it."),
        "top": ("hotpool.cli.top", "Show an overview of nodes and pools."),
        "events": ("hotpool.cli.events", "Show what happened to a pool, a node or the fleet."),
        "diff": ("hotpool.cli.diff", "Show the nodes that would join and leave pools if manifests were applied."),
        "pick": ("hotpool.cli.pick", "Pick a node of a pool, as a dispatcher does."),
        "drain": ("hotpool.cli.drain", "Offer no new work to a node: set its spec.drain."),
        "undrain": ("hotpool.cli.undrain", "Offer a drained node again: unset its spec.drain."),
        "start": ("hotpool.cli.start", "Start a service of a node through the cluster."),
        "stop": ("hotpool.cli.stop", "Stop a service of a node through the cluster."),
        "exclude": ("hotpool.cli.exclude", "Keep a node out of a pool: add it to spec.excludeNodes."),
        "include": (
            "hotpool.cli.include",
            "End the exclusion of a node from a pool: remove it from spec.excludeNodes.",
        ),
        "enroll": (
            "hotpool.cli.enroll",
            "Create an account and a kubeconfig for the agent of a node outside the cluster.",
        ),
    },
    version=__version__,
    sections=None,
    summary="Keep every node in exactly the pools whose requirements it meets now.",
)
