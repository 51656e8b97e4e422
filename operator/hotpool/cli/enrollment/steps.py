"""The parts of `hotpool enroll`: an account, its trial, its credentials, its end.

Each may be cut off anywhere, and begins with what it finds.
"""

import asyncio
from time import monotonic
from typing import Final

from hotpool.cli.enrollment import manifests as objects
from hotpool.cli.enrollment.manifests import Credential, ForeignError
from hotpool.cli.options import CommandError
from hotpool.common import cli_help
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.service_accounts import PolicyCheck, ServiceAccounts

POLL_SECONDS: Final = 0.5
_FILL_SECONDS: Final = 20.0
"""How long the controller-manager may take to put a token into a Secret."""


async def check_account(door: ServiceAccounts, node: str) -> None:
    """Raises ForeignError where somebody else has made an account of that name."""
    account = objects.account_of(node)
    labels = await door.labels_of(account)
    if labels is not None and objects.ENROLLED_LABEL not in labels:
        raise ForeignError(f"ServiceAccount {account} was not made by hotpool enroll, which leaves it alone")


async def make_account(door: ServiceAccounts, node: str, namespace: str) -> None:
    """The account with its rights, made or put right."""
    await check_account(door, node)
    for body in objects.account(node, namespace):
        try:
            await door.apply(body)
        except ApiUnavailable as error:
            if error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                raise CommandError(f"no namespace {namespace}", cli_help.NOT_FOUND) from None
            raise


async def require_policy(door: ServiceAccounts, node: str, namespace: str, *, fresh: bool) -> None:
    """Fail closed: no credential without the policy; an account that has none yet goes again."""
    outcome = await door.check_policy(objects.account_of(node), node)
    if outcome is PolicyCheck.REFUSED:
        return
    if fresh:
        await remove(door, node)
    if outcome is PolicyCheck.UNKNOWN:
        raise CommandError("the API server does not heed the new Role yet; try again", cli_help.UNAVAILABLE)
    raise CommandError(
        f"nothing keeps an agent of namespace {namespace} to its own node: the ValidatingAdmissionPolicy "
        f"hotpool-{namespace}-agent or its binding is missing. Install the chart there. No credential was made",
        cli_help.NOT_INSTALLED,
    )


async def credentials(door: ServiceAccounts, node: str) -> list[Credential]:
    """Those that there are: two at most."""
    read = [(name, await door.secret(name)) for name in objects.secrets_of(node)]
    return [objects.credential(name, node, found) for name, found in read if found]


async def credential(door: ServiceAccounts, node: str, name: str) -> Credential:
    """One that must be there."""
    found = await door.secret(name)
    if found is None:
        raise CommandError(f"Secret {name} was deleted meanwhile; try again", cli_help.UNAVAILABLE)
    return objects.credential(name, node, found)


async def wait_for_token(door: ServiceAccounts, node: str, name: str) -> Credential:
    """The credential with its token."""
    deadline = monotonic() + _FILL_SECONDS
    while True:
        found = await credential(door, node, name)
        if found.token:
            return found
        if monotonic() > deadline:
            words = f"the cluster's controller-manager put no token into Secret {name}; the next run waits again"
            raise CommandError(words, cli_help.UNAVAILABLE)
        await asyncio.sleep(POLL_SECONDS)


async def remove(door: ServiceAccounts, node: str) -> bool:
    """Remove rights first, for they end at once; whether there was anything."""
    account = objects.account_of(node)
    parts = [("RoleBinding", account), ("Role", account)]
    parts += [("Secret", name) for name in objects.secrets_of(node)]
    # The account last: as long as it is there the next run sees that something is left.
    parts += [("ServiceAccount", account)]
    return any([await door.delete(kind, name) for kind, name in parts])
