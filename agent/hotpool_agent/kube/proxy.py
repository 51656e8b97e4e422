"""Which proxy leads to the API server, as kubectl decides it: pure.

The HTTP client's own reading of the environment is not used: it knows no networks in NO_PROXY (10.0.0.0/8), and it
would take passwords from ~/.netrc beside the agent's credential.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

_PORTS: Final = {"http": 80, "https": 443}


class ProxyError(ValueError):
    """A proxy that cannot be used; the message says which, without its password."""


def proxy_for(server: str, stated: str | None, environ: Mapping[str, str]) -> str | None:
    """The proxy's address, or None. `stated`, the kubeconfig's proxy-url, goes before the environment."""
    target = urlsplit(server)
    found = stated or _from_environment(target, environ)
    if not found:
        return None
    address = found if "://" in found else f"http://{found}"
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ProxyError(f"proxy {parts.scheme}://{parts.hostname} is not supported; use http:// or https://")
    return address


def _from_environment(target: SplitResult, environ: Mapping[str, str]) -> str | None:
    name = f"{target.scheme}_proxy"
    found = environ.get(name) or environ.get(name.upper())
    excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return None if not found or _is_direct(target, excluded) else found


def _is_direct(target: SplitResult, excluded: str) -> bool:
    host = (target.hostname or "").lower()
    address = _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    port = target.port or _PORTS.get(target.scheme)
    return any(_matches(entry.strip().lower(), host, port) for entry in excluded.split(",") if entry.strip())


def _matches(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    address = _address(host)
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        pass
    else:
        return address is not None and address in network
    name, colon, its_port = entry.rpartition(":")
    if colon and its_port.isdecimal():
        return int(its_port) == port and _matches(name.strip("[]"), host, port)
    if address:
        return False
    # As in Go: `example.com` covers its subdomains too, `.example.com` and `*.example.com` cover them alone.
    suffix = entry.removeprefix("*")
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith(f".{suffix}")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
