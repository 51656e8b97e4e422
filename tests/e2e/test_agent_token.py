"""The API server refuses forbidden requests with the token of a real agent's pod."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.release import Release, until
from tests.support.attacks import ATTEMPTS, LABEL, Attempt, lease, ncap
from tests.support.identities import Credential

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path.

INTENT = {"services": [{"id": "nmt", "desired": "Running"}]}


@pytest.fixture(scope="module")
def stolen(bare: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Credential]:
    """The token that the kubelet gave to the agent's pod."""
    bare.namespace = "identity"
    bare.run("kubectl create namespace identity")
    bare.helm("install", "--wait", "--timeout", "3m", values={})
    bare.apply(ncap("edge-2"), lease("hotpool-node-edge-2", **LABEL))
    (agent,) = bare.pods("agent")
    token = bare.kubectl("exec", agent["metadata"]["name"], "--", "python3", "-c", f"print(open('{TOKEN}').read())")
    view = json.loads(bare.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    view["users"] = [{"name": "agent", "user": {"token": token.strip()}}]
    path = tmp_path_factory.mktemp("stolen") / "kubeconfig"
    path.write_text(json.dumps(view))
    node = agent["spec"]["nodeName"]
    reason = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}"
    until(lambda: bare.kubectl("get", "ncap", node, "--ignore-not-found", "-o", reason), "Live")
    for lease_name in (f"hotpool-node-{node}", "hotpool-operator-canary"):
        until(lambda name=lease_name: bool(bare.kubectl("get", "lease", name, "--ignore-not-found")), True)  # type: ignore[misc]
    people = {"metadata": {"labels": {"zone": "a"}, "annotations": {"owner": "ops"}}, "spec": INTENT}
    bare.kubectl("patch", "ncap", node, "--type=merge", "-p", json.dumps(people))
    yield credential(bare, path, {"ns": "identity", "node": node, "other": "edge-2", "fresh": "edge-3"})
    bare.helm("uninstall", "--wait")
    bare.run("kubectl delete namespace identity")


def credential(release: Release, path: Path, words: dict[str, str]) -> Credential:
    def read(place: str) -> Any:
        return json.loads(release.kubectl("get", "--raw", place.partition("?")[0].removesuffix("/status")))

    return Credential(path, words, read)


# A real node is ready, so a forged condition Ready changes nothing.
@pytest.mark.parametrize(
    "attempt", [a for a in ATTEMPTS if not a.fresh and a.id != "ready-forged"], ids=lambda attempt: attempt.id
)
def test_a_forbidden_request_with_the_token_of_an_agents_pod_is_refused(stolen: Credential, attempt: Attempt) -> None:
    """A forged report is older than the agent's own, so that the schema may refuse it before the policy does."""
    answer = stolen.send(attempt)
    forged = '"report"' in json.dumps(attempt.body)
    barriers = {attempt.expected_barrier("inside"), *(["schema"] if forged else [])}
    assert answer.refused_by in barriers, answer
