"""Name of the agent's node. Quick to import, for the commands that query a running agent."""

import re
import socket

from hotpool.api.names import NODE_NAME_MAX, SUBDOMAIN_PATTERN


class NodeNameError(ValueError):
    """A node name that Kubernetes would reject; the message says what is allowed."""


def node_name(given: str | None) -> str:
    """Return the given name, or the host name in lower case. Raises NodeNameError if it is not a DNS name."""
    name = given if given is not None else socket.gethostname().lower()
    if len(name) > NODE_NAME_MAX or not re.fullmatch(SUBDOMAIN_PATTERN, name):
        raise NodeNameError(
            f"node name {name!r} must be a DNS name: lower case letters, digits, '-' and '.', beginning and ending "
            f"with a letter or digit, at most {NODE_NAME_MAX} characters; set one with --node"
        )
    return name
