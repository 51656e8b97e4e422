"""The file in which a credential is handed out: written whole and private, and never over somebody else's."""

import os
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from hotpool.cli.enrollment.manifests import is_of


def write_error(path: Path, node: str) -> str | None:
    """Why the node's kubeconfig must not or cannot be written there; None: it may."""
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        return "no file can be written there"
    try:
        foreign = path.exists() and not is_of(path.read_text(encoding="utf-8", errors="replace"), node)
    except OSError as error:
        return str(error)
    return f"it is there and is no credential of {node}; choose another file" if foreign else None


def is_loopback(server: str) -> bool:
    """Whether an address is of use on this machine only."""
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
