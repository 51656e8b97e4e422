"""The chart without helm: rendered manifests applied again change nothing, and passwords are made in the cluster."""

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import redis
import yaml

from localfleet.chart import CHART, helm_program, render
from localfleet.redis_server import HOST, RedisServer

VALUES: Final[dict[str, Any]] = {
    "redis": {"builtin": {"enabled": True}},
    "agent": {"catalogue": {"services": []}},
    "monitoring": {"dashboard": {"enabled": True}},
}
SCRIPT: Final = CHART / "files" / "redis_users.py"
USERS: Final = {"hotpool-operator": "operator-password", "hotpool-dispatcher": "dispatcher-password"}
Run: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def namespace(kind_cluster: Any) -> Iterator[str]:
    """An empty namespace on an API server with the CRDs."""
    name = f"chart-{uuid.uuid4().hex[:6]}"
    kind_cluster.kubectl("apply", "--server-side", "-f", str(CHART / "crds"))
    kind_cluster.kubectl("create", "namespace", name)
    yield name
    kind_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(kind_cluster: Any, namespace: str) -> Run:
    """A function that runs kubectl in the namespace; `text` is its input."""

    def run(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [kind_cluster.kubectl_path, "--kubeconfig", kind_cluster.kubeconfig_path, "-n", namespace, *words]
        return subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False)

    return run


def template(namespace: str) -> str:
    """Return what `helm template` prints."""
    return yaml.safe_dump_all(render(namespace, VALUES))


def passwords(kubectl: Run) -> dict[str, str]:
    """Return the passwords in the Secret by their keys."""
    data = json.loads(kubectl("get", "secret", "hotpool-redis", "-o", "json").stdout).get("data", {})
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.fixture
def make_users(kind_cluster: Any, kubectl: Run, namespace: str, tmp_path: Path) -> Callable[[], str]:
    """A function that does what the pod of Redis does first, with its account, and returns the file of the users."""
    account = tmp_path / "var/run/secrets/kubernetes.io/serviceaccount"
    cluster = yaml.safe_load(Path(kind_cluster.kubeconfig_path).read_text())["clusters"][0]["cluster"]
    host, port = cluster["server"].removeprefix("https://").split(":")

    def run() -> str:
        account.mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc/hotpool-redis").mkdir(parents=True, exist_ok=True)
        (account / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        (account / "token").write_text(kubectl("create", "token", "hotpool-redis").stdout)
        (server,) = render(namespace, VALUES, only="redis/server.yaml")
        (container,) = server["spec"]["template"]["spec"]["initContainers"]
        (program,) = container["args"]
        environment = {"USERS": container["env"][0]["value"], "NAMESPACE": namespace}
        environment |= {
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "HTTPS_PROXY": "http://[::1]:1",
        }
        assert program.endswith('main(Path("/"))\n')
        program = program.replace('main(Path("/"))', f"main(Path({str(tmp_path)!r}))")
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        return (tmp_path / "etc/hotpool-redis/users.acl").read_text()

    return run


@pytest.mark.parametrize("way", [(), ("--server-side",)], ids=["client", "server"])
def test_applying_the_rendered_chart_again_changes_nothing(
    kubectl: Run, namespace: str, make_users: Callable[[], str], way: tuple[str, ...]
) -> None:
    """Also after the pod of Redis has added passwords to the Secret. A change of its pods would restart them."""
    text = template(namespace)
    assert template(namespace) == text
    first = kubectl("apply", *way, "-f", "-", text=text)
    assert first.returncode == 0, first.stderr
    make_users()
    before, known = versions(kubectl, text), passwords(kubectl)
    assert set(known) == set(USERS.values())
    compared = kubectl("diff", *way, "-f", "-", text=text)
    assert (compared.returncode, compared.stdout) == (0, "")
    again = kubectl("apply", *way, "-f", "-", text=text)
    assert again.returncode == 0, again.stderr
    assert [
        line for line in again.stdout.splitlines() if not line.endswith((" unchanged", " serverside-applied"))
    ] == []
    assert (versions(kubectl, text), passwords(kubectl)) == (before, known)


def versions(kubectl: Run, text: str) -> dict[str, str]:
    """Return the version of each of the objects."""
    listed = kubectl("get", "-f", "-", "-o", "json", text=text).stdout
    found = [item["metadata"] | {"kind": item["kind"]} for item in json.loads(listed)["items"]]
    # Controllers write the status of workloads and policies, so that only the generation of their spec counts.
    return {f"{one['kind']}/{one['name']}": one.get("generation", one["resourceVersion"]) for one in found}


def test_redis_accepts_the_generated_passwords_and_keeps_them(
    kubectl: Run, namespace: str, make_users: Callable[[], str], tmp_path: Path
) -> None:
    kubectl("apply", "-f", "-", text=template(namespace))
    users = make_users()
    known = passwords(kubectl)
    assert make_users() == users
    assert not any(password in users for password in known.values())
    # The fixture sends its first command without a login.
    (tmp_path / "users.acl").write_text(users.replace("user default off", "user default on nopass +ping"))
    with RedisServer(options=(f"--aclfile {tmp_path / 'users.acl'}",)) as server:
        for user, key in USERS.items():
            client = redis.Redis(HOST, server.port, username=user, password=known[key])
            assert client.time()
            client.close()


def test_helm_keeps_the_passwords_and_installs_the_test_that_kubectl_does_not_run(
    kind_cluster: Any, kubectl: Run, namespace: str, make_users: Callable[[], str]
) -> None:
    def helm(verb: str, *words: str) -> str:
        command = [helm_program(), "--kubeconfig", kind_cluster.kubeconfig_path, "-n", namespace, *verb.split()]
        done = subprocess.run(
            [*command, "hotpool", *words], input=json.dumps(VALUES), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    helm("install", str(CHART), "--skip-crds", "--values", "-")
    make_users()
    known = passwords(kubectl)
    helm("upgrade", str(CHART), "--values", "-", "--set", "redis.prefix=east")
    assert passwords(kubectl) == known
    helm("rollback", "1")
    assert passwords(kubectl) == known
    assert "name: hotpool-test" in helm("get hooks")
    assert "Pod" not in {item["kind"] for item in render(namespace, VALUES)}
    helm("uninstall")
    assert kubectl("get", "secret", "hotpool-redis").returncode
