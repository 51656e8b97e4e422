"""`hotpool enroll`: account and credentials of an agent outside the cluster, their rotation and revocation.

`cli.enrollment` reads and writes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from hotpool.api.names import NODE_NAME_MAX, SUBDOMAIN_PATTERN
from hotpool.cli.options import ERROR_CODES, FleetOptions, fleet_options
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command

_ROLE: Final = "hotpool-enroller"
_TO_STDOUT: Final = "-"

_HELP: Final = HelpSections(
    examples={
        "An account for edge-017, and its kubeconfig": "hotpool enroll edge-017 -n speech -o edge-017.kubeconfig",
        "Agents use another address of the API server": (
            "hotpool enroll edge-017 --server https://api.example.com:6443"
        ),
        "Directly to the machine": "hotpool enroll edge-017 -o - | ssh edge-017 'umask 077; cat > kubeconfig'",
        "Rotate; delete the former credential after the first use of the new one": (
            "hotpool enroll edge-017 -o edge-017.kubeconfig --wait 600"
        ),
        "Revoke, for example after a theft": "hotpool enroll edge-017 --revoke",
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "done",
        exit_codes.NOT_YET: "--wait: the credential was not used in time",
        exit_codes.NOT_FOUND: "no such namespace; --revoke: the node is not enrolled",
        exit_codes.NOT_INSTALLED: "hotpool's definitions or its admission policy for agents are not installed",
    },
)


@dataclass(frozen=True, slots=True)
class EnrollOptions:
    """Options of the command."""

    node: str
    fleet: FleetOptions
    output: str
    server: str | None
    wait: float | None

    @property
    def file(self) -> Path | None:
        """File for the kubeconfig; None: standard output."""
        return None if self.output == _TO_STDOUT else Path(self.output)

    def progress(self, *lines: str) -> None:
        """Print lines for the user; on standard error if the kubeconfig goes to standard output."""
        click.echo("\n".join(lines), err=self.file is None)


@command(_HELP)
@click.argument("node")
@click.option(
    "--output", "-o", metavar="FILE", help="File for the kubeconfig, or -. Default: hotpool-agent-NODE.kubeconfig."
)
@click.option("--server", metavar="URL", help="API server for the agent. Default: that of your kubeconfig.")
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0),
    help="Wait for the first use, then delete the former credential.",
)
@click.option("--revoke", is_flag=True, help="Delete account and credentials instead.")
@fleet_options
def enroll(
    *,
    node: str,
    output: str | None,
    server: str | None,
    wait: float | None,
    revoke: bool,
    fleet: FleetOptions,
) -> None:
    """Create an account and a kubeconfig for the agent of a node outside the cluster.

    The account can write only the record of this node. Before it creates a credential, the command checks that the
    API server enforces this, and fails if it does not.

    Another run rotates: it creates a second credential. After the first use of the second, the next run, or --wait,
    deletes the former. There are never three. The file always has the newest one. Credentials do not expire:
    --revoke ends them at once.
    """
    from hotpool.cli.enrollment import kubeconfig_file, manifests, rotation
    from hotpool.cli.query import run_connected
    from hotpool.kube.service_accounts import ServiceAccounts

    if len(node) > NODE_NAME_MAX or not re.fullmatch(SUBDOMAIN_PATTERN, node):
        raise click.UsageError(f"{node!r} is not a node name: a DNS name of at most {NODE_NAME_MAX} characters")
    if revoke and (output or server or wait is not None):
        raise click.UsageError("--revoke excludes -o, --server and --wait")
    if server and not urlsplit(server).scheme == "https":
        raise click.UsageError("--server must be https://…, because a token is sent there")
    options = EnrollOptions(node, fleet, output or f"{manifests.account_name(node)}.kubeconfig", server, wait)
    if not revoke and options.file and (reason := kubeconfig_file.write_error(options.file, node)):
        raise click.UsageError(f"-o {options.file}: {reason}")
    task = rotation.revoke if revoke else rotation.create_or_rotate
    run_connected(
        "enroll", fleet, lambda connection: task(ServiceAccounts(connection, fleet.namespace), options), role=_ROLE
    )
