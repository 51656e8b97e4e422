"""Checks before a kubeconfig with a credential is written: it must replace no file of another kind."""

import os
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from hotpool.cli.enrollment.manifests import belongs_to


def write_error(path: Path, node: str) -> str | None:
    """Return the reason why the kubeconfig of the node must not or cannot be written there, or None."""
    folder = path.absolute().parent
    if path.is_dir():
        return "it is a folder; give a file"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if not os.access(folder, os.W_OK):
        return f"the folder {folder} is not writable"
    try:
        foreign = path.exists() and not belongs_to(path.read_text(encoding="utf-8", errors="replace"), node)
    except OSError as error:
        return str(error)
    return f"the file exists and is not a kubeconfig of {node}; choose another file" if foreign else None


def is_loopback(server: str) -> bool:
    """Return True if the address is valid on this machine only."""
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
