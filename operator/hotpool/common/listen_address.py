"""Listen address of an HTTP server: an IP address, or `*` for every address, and a port."""

from ipaddress import ip_address
from typing import Annotated, Final

from pydantic import AfterValidator

_PORT_MAX: Final = 65535
_FORM: Final = (
    "must be ADDRESS:PORT, for example 127.0.0.1:8080 or [::]:8080; *:8080 is every address, port 0 any free port"
)


def host_and_port(listen: str) -> tuple[str | None, int]:
    """Split `127.0.0.1:9810`, `[::1]:9810` or `*:9810`, whose host is None: every address. Raises ValueError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > _PORT_MAX:
        raise ValueError(_FORM)
    if host == "*":
        return None, int(port)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ip_address(bare)
    except ValueError as error:
        raise ValueError(f"{host!r} is not an IP address: {_FORM}") from error
    return bare, int(port)


def _validated(listen: str) -> str:
    host_and_port(listen)
    return listen


ListenAddress = Annotated[str, AfterValidator(_validated)]
