"""Choose a worker's addresses so that nothing else on the machine is reached by them.

Reads the host's routes. Must not change a route.
"""

import ipaddress
import json
import random
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Network

from localkube.errors import KindError
from localkube.process import SYSTEM_PATH
from localkube.worker import Worker, free_subnets


def choose_subnet(others: Iterable[Worker]) -> int:
    """A subnet that no route of the host leads to, and that no other cluster has been given."""
    command = ["ip", "-json", "-4", "route", "show", "table", "all"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": SYSTEM_PATH}, check=True)
    free = free_subnets([*destinations(done.stdout), *(other.network for other in others)])
    if not free:
        raise KindError("no free network for a worker: every 10.200.0.0/16 to 10.249.0.0/16 is routed already")
    # At random: a cluster of another home may be choosing now.
    return random.SystemRandom().choice(free)


def destinations(routes: str) -> list[IPv4Network]:
    """The networks in what ``ip -json route`` prints; the default route leads anywhere and so does not count."""
    found = [str(route["dst"]) for route in json.loads(routes or "[]")]
    return [ipaddress.IPv4Network(network, strict=False) for network in found if network != "default"]
