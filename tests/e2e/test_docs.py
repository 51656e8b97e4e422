"""Every command of docs/how-to/install.md, in its order, by a person who has kubectl and helm and nothing else.

Also checks the objects that `helm uninstall` leaves, and that the page's last commands delete everything.
"""

import re
from typing import Final

from tests.e2e.release import Release, until

from localfleet.kind import REPOSITORY

PAGE: Final = REPOSITORY / "docs/how-to/install.md"
CONSOLE: Final = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
STAYS: Final = {
    "CustomResourceDefinition",
    "Lease",
    "NodeCapability",
    "NodePool",
    "NodePoolSlice",
}
"""Kinds that `helm uninstall` leaves, as the page says under "Remove"."""

Object = tuple[str, str, str]
"""Kind, namespace, name."""


def commands() -> list[str]:
    """Return the commands of the page."""
    blocks = CONSOLE.findall(PAGE.read_text())
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def objects(release: Release) -> set[Object]:
    """Return everything that the API server stores, except Events."""
    kinds = release.run("kubectl api-resources --verbs=list -o name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith(("events", "componentstatuses")))
    form = r'{range .items[*]}{.kind}{"\t"}{.metadata.namespace}{"\t"}{.metadata.name}{"\n"}{end}'
    lines = release.run(f"kubectl get {wanted} -A -o jsonpath='{form}'").splitlines()
    return {(kind, namespace, name) for kind, namespace, name in (line.split("\t") for line in lines)}


def of_hotpool(found: set[Object]) -> set[Object]:
    """Return objects without the API server's own, and without the sample service, which the page does not remove."""
    return {one for one in found if "whisper" not in one[2] and one[0] != "APIService" and one[1] != "kube-node-lease"}


def wait_for_removed_kinds(release: Release) -> None:
    """Wait until the API server does not serve hotpool's kinds any more."""
    until(lambda: "hotpool.dev" in release.run("kubectl api-resources -o name"), False)


def test_every_command_of_the_page_has_the_described_result(bare: Release) -> None:
    release = bare
    release.namespace = "speech"
    release.run("kubectl delete -f crds/ --ignore-not-found")  # of an earlier release
    wait_for_removed_kinds(release)
    before = objects(release)
    release.run("kubectl create namespace speech")
    for created in ("serviceaccount/default", "configmap/kube-root-ca.crt"):
        release.run(f"kubectl -n speech wait --for=create --timeout=60s {created}")
    empty = objects(release) - before
    for command in commands():
        output = release.run(command, seconds=400)
        if command.startswith("kubectl get nodepools"):
            assert re.search(r"^speech\s+True\s+EnoughMembers\s+1\s", output, re.MULTILINE)
        if command.startswith("kubectl get nodecapabilities"):
            assert re.search(r"\sTrue\s+Live\s+1/1\s", output)
        if command.startswith("helm uninstall hotpool -n speech"):
            until(lambda: release.get("pods", "-l", "app.kubernetes.io/name=hotpool")["items"], [])
            until(lambda: {kind for kind, _, _ in of_hotpool(objects(release) - before - empty)}, STAYS)
    wait_for_removed_kinds(release)
    nothing: set[Object] = set()
    until(lambda: of_hotpool(objects(release) - before - empty), nothing)
