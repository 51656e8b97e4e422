"""Choice of the proxy to the API server, by kubectl's rules (those of Go's `httpproxy`): pure.

The HTTP client's own reading of the environment is not used: it does not support networks in NO_PROXY (10.0.0.0/8), and
it would also send passwords from ~/.netrc.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
Address = IPv4Address | IPv6Address


class ProxyError(ValueError):
    """An unsupported proxy; the message names it without its password."""


def proxy_for(server: str, configured: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the proxy's address, or None. `configured`, the kubeconfig's proxy-url, overrides the environment.

    Raises ProxyError.
    """
    proxy = configured or _from_environment(urlsplit(server), environ)
    if not proxy:
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ProxyError("the proxy's address is not a URL; use http://HOST:PORT") from None
    if parts.scheme not in _PORTS or not host:
        raise ProxyError(f"proxy {parts.scheme}://{host or ''} is not supported; use http:// or https://")
    return address


def _from_environment(target: SplitResult, environ: Mapping[str, str]) -> str | None:
    proxy = _variable(f"{target.scheme}_proxy", environ)
    if target.scheme == "http" and "REQUEST_METHOD" in environ:
        # In a CGI program HTTP_PROXY is a header of its client.
        return None
    return None if not proxy or _is_direct(target, _variable("no_proxy", environ)) else proxy


def _variable(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name.upper()) or environ.get(name) or ""


def _is_direct(target: SplitResult, excluded: str) -> bool:
    host = (target.hostname or "").lower()
    address = _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    port = target.port or _PORTS.get(target.scheme)
    return any(_matches(entry.strip().lower(), host, address, port) for entry in excluded.split(",") if entry.strip())


def _matches(entry: str, host: str, address: Address | None, port: int | None) -> bool:
    """Return True if the entry of NO_PROXY includes the host. Networks have no port."""
    if entry == "*":
        return True
    if "/" in entry:
        return _in_network(entry, address)
    name, entry_port = _split_port(entry)
    if entry_port is not None and entry_port != port:
        return False
    if excluded := _address(name):
        return excluded == address
    # `example.com` includes its subdomains; `.example.com` and `*.example.com` are only the subdomains.
    suffix = name[1:] if name.startswith("*.") else name
    if not suffix:
        return False
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith(f".{suffix}")


def _in_network(entry: str, address: Address | None) -> bool:
    try:
        return address is not None and address in ip_network(entry, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, int | None]:
    name, colon, port = entry.rpartition(":")
    if not colon or not port.isdecimal() or (":" in name and not name.startswith("[")):
        return entry.strip("[]"), None
    return name.strip("[]"), int(port)


def _address(host: str) -> Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
