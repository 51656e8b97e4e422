"""Choice of the proxy to the API server, by kubectl's rules: pure.

The HTTP client's own reading of the environment is not used: it does not support networks in NO_PROXY (10.0.0.0/8), and
it would also send passwords from ~/.netrc.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

_PORTS: Final = {"http": 80, "https": 443}


class ProxyError(ValueError):
    """An unsupported proxy; the message names it without its password."""


def proxy_for(server: str, configured: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the proxy's address, or None. `configured`, the kubeconfig's proxy-url, overrides the environment."""
    target = urlsplit(server)
    proxy = configured or _from_environment(target, environ)
    if not proxy:
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ProxyError(f"proxy {parts.scheme}://{parts.hostname} is not supported; use http:// or https://")
    return address


def _from_environment(target: SplitResult, environ: Mapping[str, str]) -> str | None:
    name = f"{target.scheme}_proxy"
    proxy = environ.get(name) or environ.get(name.upper())
    excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return None if not proxy or _is_direct(target, excluded) else proxy


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
    name, colon, entry_port = entry.rpartition(":")
    if colon and entry_port.isdecimal():
        return int(entry_port) == port and _matches(name.strip("[]"), host, port)
    if address:
        return False
    # As in Go: `example.com` includes its subdomains; `.example.com` and `*.example.com` are only the subdomains.
    suffix = entry.removeprefix("*")
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith(f".{suffix}")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
