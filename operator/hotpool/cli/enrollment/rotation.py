"""Enrollment of a node, the rotation of its credential, and its revocation.

Each run takes at most one step of a rotation and starts from the stored objects, so that the next run completes an
interrupted one.
"""

import asyncio
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from hotpool.api.meta import LEASE_PREFIX
from hotpool.cli.enrollment import kubeconfig_file, manifests, steps
from hotpool.cli.enrollment.manifests import Credential
from hotpool.cli.options import CommandError
from hotpool.common import exit_codes
from hotpool.common.atomic_file import write_atomically
from hotpool.kube.service_accounts import ServiceAccounts

if TYPE_CHECKING:
    from hotpool.cli.enroll import EnrollOptions


async def create_or_rotate(accounts: ServiceAccounts, options: "EnrollOptions") -> None:
    """Create account and credential, or take the next step of a rotation. Raises CommandError and ApiUnavailable."""
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
    options.progress(*result_lines(step, options))
    if options.wait is not None:
        await _wait(accounts, options, newest, step.former)


def _write_kubeconfig(accounts: ServiceAccounts, options: "EnrollOptions", newest: Credential) -> None:
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


def result_lines(step: manifests.RotationStep, options: "EnrollOptions") -> tuple[str, ...]:
    """Return what the run did with the credentials, when each of them ends, and what comes next."""
    place = str(options.file) if options.file else "standard output"
    again = f"hotpool enroll {options.node} -n {options.fleet.namespace} -o {options.output}"
    if step.retired:
        return (
            "Rotated: the former credential is deleted, and is refused within 10 s.",
            f"{place} has the one in use, which does not expire. To rotate again: {again}",
        )
    if step.former:
        begun = "Rotation begun" if step.newest is None else "Rotation continues, nothing new is created"
        return (
            f"{begun}: a second credential is in {place}; it does not expire.",
            "The former one ends when it is deleted: by the next run, or --wait, after the first use of this one.",
            "Replace the former file on the node (a running agent reloads it), then delete the former credential:",
            f"  {again}",
        )
    repeated = "It is the same as before: it was never used, so nothing is rotated. " if step.newest else ""
    revoke = f"hotpool enroll {options.node} -n {options.fleet.namespace} --revoke"
    return (
        f"The credential is in {place}. It can write the reports of {options.node}: keep it secret.",
        f"{repeated}It does not expire; to end it: {revoke}",
        "Copy it to the node, and start the agent:",
        f"  hotpool-agent run --node {options.node} --kubeconfig {options.output} --catalogue node.yaml",
    )


async def _wait(
    accounts: ServiceAccounts, options: "EnrollOptions", new: Credential, former: Credential | None
) -> None:
    deadline = monotonic() + (options.wait or 0)
    while not (await steps.credential(accounts, options.node, new.name)).used:
        if monotonic() > deadline:
            valid = "both credentials are valid" if former else "it is valid"
            raise CommandError(f"no agent used the credential in time; {valid}", exit_codes.NOT_YET)
        await asyncio.sleep(steps.POLL_SECONDS)
    if former:
        await accounts.delete("Secret", former.name, former.uid)
    options.progress("The credential was used." + (" The former credential is deleted." if former else ""))


async def revoke(accounts: ServiceAccounts, options: "EnrollOptions") -> None:
    """Delete account and credentials. Raises CommandError and ApiUnavailable."""
    node, namespace = options.node, options.fleet.namespace
    await steps.check_account(accounts, node)
    if not await steps.remove(accounts, node):
        raise CommandError(f"node {node} is not enrolled in namespace {namespace}", exit_codes.NOT_FOUND)
    options.progress(
        f"The agent of {node} is refused from now on; its last report stays.",
        "The node is deleted after 10 minutes of silence, unless a person edited its record. To delete it now:",
        f"  kubectl -n {namespace} delete nodecapability/{node} lease/{LEASE_PREFIX}{node}",
    )
