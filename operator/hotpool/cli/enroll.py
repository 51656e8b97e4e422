"""`hotpool enroll`: account and credentials of an agent outside the cluster, their rotation and revocation.

Each run takes at most one step of a rotation and starts from the stored objects, so that the next run completes an
interrupted one.
"""

import asyncio
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import click

from hotpool.api.meta import LEASE_PREFIX
from hotpool.api.names import NODE_NAME_MAX, SUBDOMAIN_PATTERN
from hotpool.cli.enrollment import kubeconfig_file, manifests, steps
from hotpool.cli.enrollment.manifests import Credential
from hotpool.cli.options import CommandError, FleetOptions, fleet_options
from hotpool.cli.query import ERROR_CODES, run_connected
from hotpool.common import exit_codes
from hotpool.common.atomic_file import write_atomically
from hotpool.common.cli_help import HelpSections, command
from hotpool.kube.service_accounts import ServiceAccounts

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
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
) -> None:
    """Create an account and a kubeconfig for the agent of a node outside the cluster.

    The account can write only the record of this node. Before it creates a credential, the command checks that the
    API server enforces this, and fails if it does not.

    Another run rotates: it creates a second credential. After the first use of the second, the next run, or --wait,
    deletes the former. There are never three. The file always has the newest one. Credentials do not expire:
    --revoke ends them at once.
    """
    if len(node) > NODE_NAME_MAX or not re.fullmatch(SUBDOMAIN_PATTERN, node):
        raise click.UsageError(f"{node!r} is not a node name: a DNS name of at most {NODE_NAME_MAX} characters")
    if revoke and (output or server or wait is not None):
        raise click.UsageError("--revoke excludes -o, --server and --wait")
    if server and not urlsplit(server).scheme == "https":
        raise click.UsageError("--server must be https://…, because a token is sent there")
    fleet = FleetOptions.of(namespace, kubeconfig, context)
    options = EnrollOptions(node, fleet, output or f"{manifests.account_name(node)}.kubeconfig", server, wait)
    if not revoke and options.file and (reason := kubeconfig_file.write_error(options.file, node)):
        raise click.UsageError(f"-o {options.file}: {reason}")
    task = _revoke if revoke else _enroll
    run_connected(
        "enroll", fleet, lambda connection: task(ServiceAccounts(connection, fleet.namespace), options), role=_ROLE
    )


async def _enroll(accounts: ServiceAccounts, options: EnrollOptions) -> None:
    node, namespace = options.node, options.fleet.namespace
    await steps.apply_account(accounts, node, namespace)
    step = manifests.next_step(manifests.secret_names(node), await steps.credentials(accounts, node))
    await steps.require_policy(accounts, node, namespace, fresh=step.newest is None and step.former is None)
    if step.retired:
        await accounts.delete("Secret", step.retired.name, step.retired.uid)
    if step.newest is None:
        await accounts.create_secret(manifests.secret(step.new_name, node, step.serial))
    newest = await steps.wait_for_token(accounts, node, step.newest.name if step.newest else step.new_name)
    _write_kubeconfig(accounts, options, newest)
    _print_next_steps(options, step)
    if options.wait is not None:
        await _wait(accounts, options, newest, step.former)


def _write_kubeconfig(accounts: ServiceAccounts, options: EnrollOptions, newest: Credential) -> None:
    server, trusted, name = accounts.server
    cluster: dict[str, Any] = {"server": options.server or server}
    # Without TLS verification in our kubeconfig, the agent still verifies: it gets the CA of the cluster itself.
    authority = trusted if accounts.verifies_server else newest.authority
    if authority:
        cluster["certificate-authority-data"] = manifests.encode_authority(authority)
    if name and not options.server:
        cluster["tls-server-name"] = name
    text = manifests.kubeconfig(options.node, options.fleet.namespace, newest.token, cluster)
    if options.file is None:
        sys.stdout.write(text)
    else:
        try:
            write_atomically(options.file, text)
        except OSError as error:
            message = f"{options.file} cannot be written: {error.strerror}; run again for the same credential"
            raise CommandError(message, exit_codes.USAGE) from None
    if kubeconfig_file.is_loopback(cluster["server"]):
        click.echo(f"warning: {cluster['server']} is this machine only; other machines need --server", err=True)


def _print_next_steps(options: EnrollOptions, step: manifests.RotationStep) -> None:
    place = str(options.file) if options.file else "standard output"
    command_line = f"hotpool enroll {options.node} -n {options.fleet.namespace}"
    if step.retired:
        options.progress(f"The former credential is deleted; {place} has the one in use. To rotate: {command_line}")
    elif step.former:
        options.progress(
            f"A second credential is in {place}; the former is valid until this one has been used.",
            "Replace the former file on the node (a running agent reloads it), then delete the former credential:",
            f"  {command_line} -o {options.output}",
        )
    else:
        options.progress(
            f"The credential is in {place}. It can write the reports of {options.node}: keep it secret.",
            "Copy it to the node, and start the agent:",
            f"  hotpool-agent run --node {options.node} --kubeconfig {options.output} --catalogue node.yaml",
        )


async def _wait(accounts: ServiceAccounts, options: EnrollOptions, new: Credential, former: Credential | None) -> None:
    deadline = monotonic() + (options.wait or 0)
    while not (await steps.credential(accounts, options.node, new.name)).used:
        if monotonic() > deadline:
            valid = "both credentials are valid" if former else "it is valid"
            raise CommandError(f"no agent used the credential in time; {valid}", exit_codes.NOT_YET)
        await asyncio.sleep(steps.POLL_SECONDS)
    if former:
        await accounts.delete("Secret", former.name, former.uid)
    options.progress("The credential was used." + (" The former credential is deleted." if former else ""))


async def _revoke(accounts: ServiceAccounts, options: EnrollOptions) -> None:
    node, namespace = options.node, options.fleet.namespace
    await steps.check_account(accounts, node)
    if not await steps.remove(accounts, node):
        raise CommandError(f"node {node} is not enrolled in namespace {namespace}", exit_codes.NOT_FOUND)
    options.progress(
        f"The agent of {node} is refused from now on; its last report stays.",
        "The node is deleted after 10 minutes of silence, unless a person edited its record. To delete it now:",
        f"  kubectl -n {namespace} delete nodecapability/{node} lease/{LEASE_PREFIX}{node}",
    )
