"""`hotpool enroll`: the account and credential of an agent outside the cluster, its rotation and its end.

Each run makes at most one step of a rotation, and begins with what it finds: one that was cut off anywhere is put right
by the next.
"""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

import typer

from hotpool.api.meta import LEASE_PREFIX
from hotpool.api.names import NODE_NAME_MAX, SUBDOMAIN_PATTERN
from hotpool.cli.enrollment import kubeconfig_file
from hotpool.cli.enrollment import manifests as objects
from hotpool.cli.enrollment import steps as work
from hotpool.cli.enrollment.manifests import Credential, ForeignError
from hotpool.cli.options import CommandError, ContextOption, FleetOptions, KubeconfigOption, NamespaceOption, fail
from hotpool.cli.query import error_message
from hotpool.common import cli_help
from hotpool.common.atomic_file import write_atomically
from hotpool.kube.client import ApiUnavailable, ClusterTarget
from hotpool.kube.service_accounts import ServiceAccounts, service_accounts

T = TypeVar("T")

_ROLE: Final = "hotpool-enroller"
_TO_STDOUT: Final = "-"

_HELP = cli_help.command(
    {
        "An account for edge-017, and its kubeconfig": "hotpool enroll edge-017 -n speech -o edge-017.kubeconfig",
        "Agents reach the API server by another address": (
            "hotpool enroll edge-017 --server https://api.example.com:6443"
        ),
        "Straight to the machine": "hotpool enroll edge-017 -o - | ssh edge-017 'umask 077; cat > kubeconfig'",
        "Rotate; the former credential goes as soon as the new one has worked": (
            "hotpool enroll edge-017 -o edge-017.kubeconfig --wait 600"
        ),
        "The machine was stolen": "hotpool enroll edge-017 --revoke",
    },
    {
        cli_help.OK: "done",
        cli_help.NOT_YET: "--wait: the credential was not used in time",
        cli_help.NOT_FOUND: "no such namespace; --revoke: there was nothing of this node",
        cli_help.NOT_INSTALLED: "hotpool's definitions or its policy for agents are not installed",
    },
)


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What the user asked for."""

    node: str
    place: FleetOptions
    output: str
    server: str | None
    wait: float | None

    @property
    def file(self) -> Path | None:
        """Where the kubeconfig goes; None: standard output."""
        return None if self.output == _TO_STDOUT else Path(self.output)

    def progress(self, *lines: str) -> None:
        """Tell the user, beside a kubeconfig on standard output where that is wanted."""
        typer.echo("\n".join(lines), err=self.file is None)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command(cls=_HELP)
    def enroll(
        node: Annotated[str, typer.Argument(metavar="NODE", help="The node's name, as the agent's --node says it.")],
        *,
        output: Annotated[
            str | None,
            typer.Option(
                "--output",
                "-o",
                metavar="FILE",
                help="The kubeconfig; - is standard output. Default: hotpool-agent-NODE.kubeconfig.",
            ),
        ] = None,
        server: Annotated[
            str | None, typer.Option(metavar="URL", help="How the agent reaches the API server. Default: as you do.")
        ] = None,
        wait: Annotated[
            float | None,
            typer.Option(metavar="SECONDS", min=0, help="Wait until it was used, then remove the former one."),
        ] = None,
        revoke: Annotated[bool, typer.Option("--revoke", help="Remove account and credentials instead.")] = False,
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
    ) -> None:
        """Make an account for the agent of a node outside the cluster, and a kubeconfig for it.

        The account can write the record of this node and nothing else; before a credential is made, the command tries
        whether the API server sees to that, and refuses where it does not.

        Run again, it rotates: it makes a second credential, and the former one works until the API server has seen
        the new one. The run after that, or --wait, removes the former; there are never three. The file always holds
        the newest one. A credential has no end of its own: --revoke ends it at once.
        """
        if len(node) > NODE_NAME_MAX or not re.fullmatch(SUBDOMAIN_PATTERN, node):
            raise typer.BadParameter(f"{node!r} is no node name: a DNS name of at most {NODE_NAME_MAX} characters")
        if revoke and (output or server or wait is not None):
            raise typer.BadParameter("--revoke goes with none of -o, --server and --wait")
        if server and not urlsplit(server).scheme == "https":
            raise typer.BadParameter("--server must be https://…: a token is sent there")
        place = FleetOptions.of(namespace, kubeconfig, context)
        order = Enrollment(node, place, output or f"{objects.account_of(node)}.kubeconfig", server, wait)
        if revoke:
            _answer(place, lambda door: _revoke(door, order))
            return
        if order.file and (reason := kubeconfig_file.write_error(order.file, node)):
            raise typer.BadParameter(f"-o {order.file}: {reason}")
        _answer(place, lambda door: _enroll(door, order))


def _answer(place: FleetOptions, task: Callable[[ServiceAccounts], Awaitable[T]]) -> T:
    """Work on the cluster; where it refuses, the command ends with one line and its exit code."""

    async def ask() -> T:
        async with service_accounts(ClusterTarget(place.namespace, place.kubeconfig, place.context)) as door:
            return await task(door)

    try:
        return asyncio.run(ask())
    except ApiUnavailable as error:
        fail("enroll", *error_message(error, place.namespace, role=_ROLE))
    except (CommandError, ForeignError) as error:
        fail("enroll", str(error), error.code if isinstance(error, CommandError) else cli_help.USAGE)


async def _enroll(door: ServiceAccounts, order: Enrollment) -> None:
    node, namespace = order.node, order.place.namespace
    await work.make_account(door, node, namespace)
    due = objects.step(objects.secrets_of(node), await work.credentials(door, node))
    await work.require_policy(door, node, namespace, fresh=due.newest is None and due.former is None)
    if due.over:
        await door.delete("Secret", due.over.name, due.over.uid)
    if due.newest is None:
        await door.create_secret(objects.secret(due.make, node, due.serial))
    newest = await work.wait_for_token(door, node, due.newest.name if due.newest else due.make)
    _hand_out(door, order, newest)
    _print_next_steps(order, due)
    if order.wait is not None:
        await _wait(door, order, newest, due.former)


def _hand_out(door: ServiceAccounts, order: Enrollment, newest: Credential) -> None:
    server, trusted, name = door.server
    cluster: dict[str, Any] = {"server": order.server or server}
    # Whoever does not check the server must not teach an agent to do so: the cluster's own authority is known.
    authority = trusted if door.verifies_server else newest.authority
    if authority:
        cluster["certificate-authority-data"] = objects.encoded(authority)
    if name and not order.server:
        cluster["tls-server-name"] = name
    text = objects.kubeconfig(order.node, order.place.namespace, newest.token, cluster)
    if order.file is None:
        sys.stdout.write(text)
    else:
        try:
            write_atomically(order.file, text)
        except OSError as error:
            words = f"{order.file} cannot be written: {error.strerror}; run it again, it hands out the same credential"
            raise CommandError(words, cli_help.USAGE) from None
    if kubeconfig_file.is_loopback(cluster["server"]):
        typer.echo(f"warning: {cluster['server']} is this machine only; other machines need --server", err=True)


def _print_next_steps(order: Enrollment, due: objects.Step) -> None:
    where = str(order.file) if order.file else "what was printed"
    again = f"hotpool enroll {order.node} -n {order.place.namespace}"
    if due.over:
        order.progress(f"The former credential is gone; {where} holds the one that is in use. To rotate again: {again}")
    elif due.former:
        order.progress(
            f"A second credential is in {where}; the former one works until this one was used.",
            "Put it in the former one's place (a running agent takes it up by itself), then remove the former:",
            f"  {again} -o {order.output}",
        )
    else:
        order.progress(
            f"The credential is in {where}. Whoever has it can speak for {order.node}: keep it secret.",
            "Put it on the node, and start the agent there:",
            f"  hotpool-agent run --node {order.node} --kubeconfig {order.output} --catalogue node.yaml",
        )


async def _wait(door: ServiceAccounts, order: Enrollment, newest: Credential, former: Credential | None) -> None:
    deadline = monotonic() + (order.wait or 0)
    while not (await work.credential(door, order.node, newest.name)).used:
        if monotonic() > deadline:
            words = "the former one works, too" if former else "it works"
            raise CommandError(f"the credential was not used in time; {words}", cli_help.NOT_YET)
        await asyncio.sleep(work.POLL_SECONDS)
    if former:
        await door.delete("Secret", former.name, former.uid)
    order.progress("It was used." + (" The former credential is gone." if former else ""))


async def _revoke(door: ServiceAccounts, order: Enrollment) -> None:
    node, namespace = order.node, order.place.namespace
    await work.check_account(door, node)
    if not await work.remove(door, node):
        raise CommandError(f"nothing of node {node} is enrolled in namespace {namespace}", cli_help.NOT_FOUND)
    order.progress(
        f"The agent of {node} is refused from now on; what it said last stays.",
        "The node falls silent, and goes after 10 minutes unless people wrote into its record. To remove it now:",
        f"  kubectl -n {namespace} delete nodecapability/{node} lease/{LEASE_PREFIX}{node}",
    )
