"""Steps of `hotpool enroll`: create, check and delete accounts and their credentials.

Each step may be interrupted anywhere, and continues from the stored objects.
"""

import asyncio
from time import monotonic
from typing import Final

from hotpool.cli.enrollment import manifests
from hotpool.cli.enrollment.manifests import Credential, ForeignError
from hotpool.cli.options import CommandError
from hotpool.common import exit_codes
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.service_accounts import PolicyCheck, ServiceAccounts

POLL_SECONDS: Final = 0.5
_TOKEN_SECONDS: Final = 20.0
"""Time limit for the controller-manager to write a token into a Secret."""


async def check_account(accounts: ServiceAccounts, node: str) -> None:
    """Raise ForeignError if the account of the node was not created by `hotpool enroll`."""
    account = manifests.account_name(node)
    labels = await accounts.labels_of(account)
    if labels is not None and manifests.ENROLLED_LABEL not in labels:
        raise ForeignError(f"ServiceAccount {account} was not created by hotpool enroll, and is not changed")


async def apply_account(accounts: ServiceAccounts, node: str, namespace: str) -> None:
    """Create or repair the account and its rights. Raises ForeignError, or CommandError without the namespace."""
    await check_account(accounts, node)
    for body in manifests.account(node, namespace):
        try:
            await accounts.apply(body)
        except ApiUnavailable as error:
            if error.status == 404:  # noqa: PLR2004 - HTTP status.
                raise CommandError(f"no namespace {namespace}", exit_codes.NOT_FOUND) from None
            raise


async def require_policy(accounts: ServiceAccounts, node: str, namespace: str, *, fresh: bool) -> None:
    """Raise CommandError without the policy. A `fresh` account, without credentials, is then deleted."""
    outcome = await accounts.check_policy(manifests.account_name(node), node)
    if outcome is PolicyCheck.REFUSED:
        return
    if fresh:
        await remove(accounts, node)
    if outcome is PolicyCheck.UNKNOWN:
        raise CommandError("the API server does not apply the new Role yet; try again", exit_codes.UNAVAILABLE)
    raise CommandError(
        f"nothing limits an agent of namespace {namespace} to its own node: the ValidatingAdmissionPolicy "
        f"hotpool-{namespace}-agent or its binding is missing. Install the chart there. No credential was created",
        exit_codes.NOT_INSTALLED,
    )


async def credentials(accounts: ServiceAccounts, node: str) -> list[Credential]:
    """Return the existing credentials of a node, at most two. Raises ForeignError."""
    secrets = [(name, await accounts.secret(name)) for name in manifests.secret_names(node)]
    return [manifests.credential(name, node, secret) for name, secret in secrets if secret]


async def credential(accounts: ServiceAccounts, node: str, name: str) -> Credential:
    """Return one credential. Raises CommandError if it was deleted."""
    secret = await accounts.secret(name)
    if secret is None:
        raise CommandError(f"Secret {name} was deleted while this command ran; try again", exit_codes.UNAVAILABLE)
    return manifests.credential(name, node, secret)


async def wait_for_token(accounts: ServiceAccounts, node: str, name: str) -> Credential:
    """Wait until the Secret has a token, and return the credential. Raises CommandError after 20 s."""
    deadline = monotonic() + _TOKEN_SECONDS
    while True:
        current = await credential(accounts, node, name)
        if current.token:
            return current
        if monotonic() > deadline:
            message = f"the controller-manager wrote no token into Secret {name}; run the command again to wait"
            raise CommandError(message, exit_codes.UNAVAILABLE)
        await asyncio.sleep(POLL_SECONDS)


async def remove(accounts: ServiceAccounts, node: str) -> bool:
    """Delete account, rights and credentials. Return True if anything existed. Rights go first: they end at once."""
    account = manifests.account_name(node)
    parts = [("RoleBinding", account), ("Role", account)]
    parts += [("Secret", name) for name in manifests.secret_names(node)]
    # The account goes last: while it exists, the next run finds that objects are left.
    parts += [("ServiceAccount", account)]
    return any([await accounts.delete(kind, name) for kind, name in parts])
