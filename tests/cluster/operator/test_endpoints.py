"""An agent that lies about its addresses, with its real credential, through a real API server (requirement B13).

It can write its own record only. What it claims there of others is not used, has a condition, and takes nothing away.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support import attacks
from tests.support.attacks import OWN, REPORT, Attempt
from tests.support.fleet_objects import pool
from tests.support.identities import NODE, OTHER, Credential, IdentityNamespace

from localfleet.fleet import Fleet
from localfleet.process import wait_for

PROGRAM: Final = str(Path(sys.executable).with_name("hotpool"))
OF_NODE, OF_POD, OF_LIAR = "10.7.0.1", "10.7.1.9", "10.7.0.2"
SECONDS: Final = 60.0

Json = dict[str, Any]


@pytest.fixture
def namespace(fleet: Fleet) -> Iterator[IdentityNamespace]:
    """Accounts and policy of agents, with a v1 Node and a pod that have addresses."""
    created = IdentityNamespace(fleet)
    created.wait_for_policy()
    created.inside(OTHER)
    addresses = {"status": {"addresses": [{"type": "InternalIP", "address": OF_NODE}]}}
    fleet.kubectl("patch", "node", NODE, "--subresource=status", "-p", json.dumps(addresses))
    created.pod(NODE, name="victim")
    running = {"status": {"phase": "Running", "podIP": OF_POD, "podIPs": [{"ip": OF_POD}]}}
    fleet.kubectl("patch", "pod", "victim", "--subresource=status", "-p", json.dumps(running))
    yield created
    created.close()


def claim(id_: str, *addresses: str, pod: Json | None = None) -> Json:
    """Return a running service that claims port 6007 at these addresses."""
    service = {"id": id_, "type": "asr", "state": "Running", "pod": pod}
    return {**service, "endpoint": {"addresses": list(addresses), "port": 6007, "appProtocol": None}}


def send(credential: Credential, record: str, *services: Json, sequence: int = 1, address: str) -> None:
    """Write the report of an agent into a record."""
    ids = [service["id"] for service in services]
    content = {
        **REPORT,
        "sequence": sequence,
        "intervalSeconds": 120,  # no Lease is renewed, and the nodes must not fall silent during the test
        "addresses": [{"ip": address, "source": "Catalogue"}],
        "services": list(services),
        "capabilities": [{"type": "asr", "ready": True, "services": ids}],
    }
    written = credential.send(Attempt("report", "PATCH", f"{record}/status", {"status": {"report": content}}))
    assert written.status == 200, written


def conditions(fleet: Fleet, node: str) -> dict[str, str]:
    """Return type → message of the conditions that are True."""
    stored = ((fleet.get("nodecapabilities", node) or {}).get("status") or {}).get("conditions") or []
    return {item["type"]: item["message"] for item in stored if item["status"] == "True"}


def problems(fleet: Fleet, node: str) -> set[str]:
    """Return the types of the conditions about addresses that are True."""
    return {"AddressNotAllowed", "AddressConflict"} & conditions(fleet, node).keys()


def endpoints(fleet: Fleet, node: str) -> dict[str, list[str]]:
    """Return service → addresses, as `hotpool why` shows them."""
    words = [PROGRAM, "why", "--node", node, "-n", fleet.namespace, "-o", "json"]
    done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "KUBECONFIG": str(fleet.admin)})
    return {item["service"]: item["addresses"] for item in json.loads(done.stdout)["endpoints"] if item["addresses"]}


def test_what_an_agent_claims_of_others_is_unused_has_a_condition_and_takes_nothing_away(
    namespace: IdentityNamespace,
) -> None:
    fleet = namespace.fleet
    of_service = fleet.kubectl("get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}")
    uid = fleet.kubectl("get", "pod", "victim", "-o", "jsonpath={.metadata.uid}")
    pod = {"namespace": fleet.namespace, "name": "victim", "uid": uid}
    fleet.apply(pool("reachable", types=[{"type": "asr"}], endpoint="Required"))
    options = ("--kube-nodes", "--endpoints-allowed-cidrs", "10.0.0.0/8", "--pod-namespaces", fleet.namespace)
    fleet.start_operator("operator", *options)
    fleet.wait_leading()
    victim, liar = namespace.inside(NODE), namespace.inside(OTHER)
    truth = (claim("node"), claim("pod", OF_POD, pod=pod))
    send(victim, OWN, *truth, address=OF_NODE)
    wait_for("the victim is reachable", lambda: fleet.members("reachable") == {NODE: "Ready"}, SECONDS)
    forbidden = {
        "metadata": "169.254.169.254",
        "loopback": "127.0.0.1",
        "unspecified": "::",
        "multicast": "ff02::1",
        "service": of_service,
        "mapped": "::ffff:127.0.0.1",
        "translated": "64:ff9b::a9fe:a9fe",
    }
    lies = [claim(id_, address) for id_, address in forbidden.items()]
    stolen = [claim("of-node", OF_NODE), claim("of-pod", OF_POD, pod=pod)]
    send(liar, attacks.OTHER, *lies, *stolen, address=OF_LIAR)

    def told() -> bool:
        """Return True when the conditions name every lie. The pod of the victim may be read after the first ones."""
        found = conditions(fleet, OTHER)
        conflicts = [
            f"{id_} at {address}:6007 is claimed by {NODE}, too, with a better right"
            for id_, address in (("of-node", OF_NODE), ("of-pod", OF_POD))
        ]
        return all(f"{id_} at " in found.get("AddressNotAllowed", "") for id_ in forbidden) and all(
            text in found.get("AddressConflict", "") for text in conflicts
        )

    wait_for("conditions", told, SECONDS)
    assert endpoints(fleet, OTHER) == {}
    assert endpoints(fleet, NODE) == {"node": [OF_NODE], "pod": [OF_POD]}
    assert not problems(fleet, NODE)
    assert fleet.members("reachable") == {NODE: "Ready"}
    send(victim, OWN, *truth, sequence=2, address=OF_NODE)
    send(liar, attacks.OTHER, claim("own"), sequence=2, address=OF_LIAR)
    wait_for("the truth", lambda: fleet.members("reachable") == {NODE: "Ready", OTHER: "Ready"}, SECONDS)
    wait_for("no condition", lambda: not problems(fleet, OTHER), SECONDS)
    assert not problems(fleet, NODE)
