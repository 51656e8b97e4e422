"""`hotpool enroll` with only the rights of Role hotpool-enroller of the chart."""

import asyncio
import shutil
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml
from click.testing import CliRunner
from kubernetes import client
from pytest_kind.cluster import KindCluster
from tests.support.attacks import CAPABILITIES, LEASES, OTHER, OWN, Attempt
from tests.support.identities import NODE, Credential, IdentityNamespace

from hotpool.cli import enroll
from hotpool.cli.enrollment import rotation
from hotpool.cli.enrollment.manifests import LAST_USED_LABEL, secret_names
from hotpool.cli.options import FleetOptions
from hotpool.cli.program import app
from hotpool.common.kubeconfig import Target
from hotpool.kube import rest, service_accounts
from hotpool.kube.client import connected
from localfleet.catalogue import translator
from localfleet.fleet import Fleet
from localfleet.process import wait_for

PROGRAM: Final = str(Path(sys.executable).with_name("hotpool"))
LABEL: Final = "hotpool.dev/enrolled"
READ: Final = Attempt("read", "GET", OWN)
WRITE: Final = Attempt("beat", "PATCH", f"{LEASES}/hotpool-node-{{node}}", {"spec": {"holderIdentity": "i/1"}})
DRAIN: Final = Attempt("drain", "PATCH", OWN, {"spec": {"drain": True}})
OTHER_NODE: Final = Attempt("other", "PATCH", OTHER, {"metadata": {"labels": {"agent.hotpool.dev/x": "y"}}})
TOKEN_CACHE_SECONDS: Final = 15.0
"""More than the 10 s for which the API server caches a valid token."""


class Result(NamedTuple):
    """Exit code and output of a run."""

    returncode: int
    stdout: str
    stderr: str


class Enroller:
    """A user with Role hotpool-enroller: namespace, kubeconfig and folder."""

    def __init__(self, ground: IdentityNamespace, folder: Path) -> None:
        self.ground = ground
        self.fleet = ground.fleet
        self.folder = folder
        self.node = NODE
        self.kubeconfig = ground.account("hotpool-enroller")
        self.file = folder / "node.kubeconfig"
        self._core = client.CoreV1Api(self.fleet.objects.api_client)

    def run(self, *words: str, node: str | None = None) -> Result:
        """Run `hotpool enroll` in this process, because a child process takes seconds to start."""
        result = CliRunner().invoke(app, self.command(*words, node=node)[1:])
        return Result(result.exit_code, result.stdout, result.stderr)

    def command(self, *words: str, node: str | None = None) -> list[str]:
        """Return the command line."""
        connection = ["-n", self.fleet.namespace, "--kubeconfig", str(self.kubeconfig)]
        return [PROGRAM, "enroll", node or self.node, *connection, *words]

    def enroll(self, *words: str) -> Credential:
        """Run the command, and return the credential in the file."""
        result = self.run("-o", str(self.file), *words)
        assert result.returncode == 0, result
        return self.credential()

    def credential(self) -> Credential:
        """Return the credential that is now in the file."""
        copy = self.folder / f"{uuid.uuid4().hex}.kubeconfig"
        shutil.copy(self.file, copy)
        return self.ground.credential_in(copy)

    def secrets(self) -> dict[str, str | None]:
        """Return name → date of last use of the credentials of the node."""
        stored = self._secrets()
        names = [name for name in secret_names(self.node) if name in stored]
        return {name: stored[name].metadata.labels.get(LAST_USED_LABEL) for name in names}

    def _secrets(self) -> dict[str, Any]:
        listed: Any = self._core.list_namespaced_secret(self.fleet.namespace, label_selector=LABEL).items
        return {item.metadata.name: item for item in listed}

    def enrolled(self) -> list[str]:
        """Return the names of all objects with the label of `enroll`."""
        kinds = "serviceaccounts,roles,rolebindings,secrets"
        return self.fleet.kubectl("get", kinds, "-l", LABEL, "-o", "name").split()

    def use(self, credential: Credential) -> None:
        """Send a request, and wait until the API server has labelled the credential as used."""
        assert credential.send(READ).status in {200, 404}

        def labelled() -> bool:
            used = [item for item in self._secrets().values() if item.data["token"] == credential.encoded_token]
            return any(LAST_USED_LABEL in item.metadata.labels for item in used)

        wait_for("the credential is labelled as used", labelled, 10)


@pytest.fixture(scope="module")
def ground(kind_cluster: KindCluster, redis_address: str) -> Iterator[IdentityNamespace]:
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    fleet = Fleet(kubeconfig, kubectl, f"enroll-{uuid.uuid4().hex[:6]}", redis_address)
    fleet.install()
    created = IdentityNamespace(fleet)
    created.wait_for_policy()
    yield created
    created.close()


@pytest.fixture
def enroller(ground: IdentityNamespace, tmp_path: Path) -> Iterator[Enroller]:
    created = Enroller(ground, tmp_path)
    yield created
    created.run("--revoke")


def test_an_enrolled_agent_can_write_its_own_record_and_no_other(enroller: Enroller) -> None:
    result = enroller.run("-o", str(enroller.file))
    assert (result.returncode, stat.S_IMODE(enroller.file.stat().st_mode)) == (0, 0o600)
    credential = enroller.credential()
    assert credential.token not in result.stdout + result.stderr
    assert f"hotpool-agent run --node {NODE} --kubeconfig {enroller.file} --catalogue node.yaml" in result.stdout
    assert "--server" in result.stderr  # the address of the test cluster is valid on this machine only
    assert credential.send(WRITE).status == 200
    assert (credential.send(DRAIN).refused_by, credential.send(OTHER_NODE).refused_by) == ("policy", "rbac")
    assert credential.send(Attempt("list", "GET", CAPABILITIES)).refused_by == "rbac"


def test_the_kubeconfig_alone_goes_to_standard_output(enroller: Enroller) -> None:
    result = enroller.run("-o", "-", "--server", "https://api.example.com:6443")
    content = yaml.safe_load(result.stdout)
    assert content["clusters"][0]["cluster"]["server"] == "https://api.example.com:6443"
    assert content["clusters"][0]["cluster"]["certificate-authority-data"]
    assert content["contexts"][0]["context"]["namespace"] == enroller.fleet.namespace
    assert "hotpool-agent run" in result.stderr
    assert content["users"][0]["user"]["token"] not in result.stderr


def test_an_unused_credential_is_handed_out_again(enroller: Enroller) -> None:
    first, second = enroller.enroll(), enroller.enroll()
    assert (first.token == second.token, len(enroller.secrets())) == (True, 1)


def test_a_rotation_keeps_the_former_credential_until_the_new_one_was_used(enroller: Enroller) -> None:
    first = enroller.enroll()
    enroller.use(first)
    second = enroller.enroll()
    assert second.token != first.token
    assert (len(enroller.secrets()), enroller.enroll().token) == (2, second.token)
    assert first.send(WRITE).status == 200
    enroller.use(second)
    result = enroller.run("-o", str(enroller.file))
    assert "the former credential is deleted" in result.stdout
    assert (len(enroller.secrets()), enroller.credential().token) == (1, second.token)
    wait_for("the former is refused", lambda: first.send(WRITE).status == 401, TOKEN_CACHE_SECONDS)
    assert second.send(WRITE).status == 200
    third = enroller.enroll()
    assert (len(enroller.secrets()), third.token in {first.token, second.token}) == (2, False)


def test_wait_ends_the_rotation_in_one_run(enroller: Enroller) -> None:
    first = enroller.enroll()
    enroller.use(first)
    late = enroller.run("-o", str(enroller.file), "--wait", "0")
    assert (late.returncode, len(enroller.secrets())) == (1, 2)
    second = enroller.credential()
    with subprocess.Popen(
        enroller.command("-o", str(enroller.file), "--wait", "60"), stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout
        assert "second credential" in waiting.stdout.readline()
        assert (waiting.poll(), len(enroller.secrets())) == (None, 2)
        enroller.use(second)
        assert "The former credential is deleted" in waiting.communicate(timeout=30)[0]
    assert (waiting.returncode, len(enroller.secrets())) == (0, 1)


def test_a_running_agent_reloads_the_new_credential(enroller: Enroller) -> None:
    """One command rotates, because it writes to the file of the running agent."""
    enroller.file = enroller.fleet.folder / f"hotpool-agent-{NODE}.kubeconfig"
    enroller.enroll()
    enroller.fleet.kubectl("delete", "ncap", NODE)
    enroller.fleet.start_agent(NODE, translator(["zh", "en"]), interval=1)

    def report() -> dict[str, Any]:
        found = enroller.fleet.get("nodecapabilities", NODE) or {}
        return dict((found.get("status") or {}).get("report") or {})

    wait_for("it reports with the credential, which is labelled", lambda: report() and all(enroller.secrets().values()))
    (before,), session = enroller.secrets(), report()["session"]
    result = enroller.run("-o", str(enroller.file), "--wait", "60")
    assert (result.returncode, list(enroller.secrets())) == (0, [name for name in secret_names(NODE) if name != before])
    enroller.fleet.agent(NODE, "stop", "piper")
    wait_for("the same process reports", lambda: report()["sequence"] > 1 and report()["session"] == session)
    enroller.fleet.agents[NODE].stop()


def test_a_revoked_agent_is_refused_at_once_and_its_record_stays(enroller: Enroller) -> None:
    credential = enroller.enroll()
    assert credential.send(WRITE).status == 200
    result = enroller.run("--revoke")
    assert credential.send(WRITE).status in {401, 403}
    assert (result.returncode, enroller.enrolled()) == (0, [])
    wait_for("its token is unknown", lambda: credential.send(READ).status == 401, TOKEN_CACHE_SECONDS)
    assert enroller.fleet.get("nodecapabilities", NODE)
    again = enroller.run("--revoke")
    assert (again.returncode, again.stderr.count("\n")) == (5, 1)
    # The printed command deletes the remaining objects.
    words = next(line.split() for line in result.stdout.splitlines() if "kubectl" in line)
    assert words[:3] == ["kubectl", "-n", enroller.fleet.namespace]
    enroller.fleet.kubectl(*words[3:])
    assert enroller.fleet.get("nodecapabilities", NODE) is None
    enroller.ground.create_objects()


def test_a_credential_is_invalid_after_its_account_was_revoked_and_enrolled_again(enroller: Enroller) -> None:
    former = enroller.enroll()
    enroller.run("--revoke")
    enroller.enroll()
    wait_for("the former is refused", lambda: former.send(WRITE).status == 401, TOKEN_CACHE_SECONDS)


def test_a_node_with_the_longest_name_can_be_enrolled(enroller: Enroller) -> None:
    enroller.node = "n" * 100 + "." + "m" * 99
    enroller.ground.words["node"] = enroller.node
    try:
        assert enroller.enroll().send(Attempt("read", "GET", OWN)).status == 404
        enroller.run("--revoke")
        assert enroller.enrolled() == []
    finally:
        enroller.ground.words["node"] = NODE


def test_without_the_policy_nothing_is_created(enroller: Enroller) -> None:
    enroller.ground.delete_policy_binding()
    try:
        result = enroller.run("-o", str(enroller.file))
        assert (result.returncode, enroller.enrolled(), enroller.file.exists()) == (6, [], False)
        assert f"hotpool-{enroller.fleet.namespace}-agent" in result.stderr
    finally:
        enroller.ground.install()
        enroller.ground.wait_for_policy()


def test_without_the_policy_an_enrolled_agent_gets_no_second_credential(enroller: Enroller) -> None:
    first = enroller.enroll()
    enroller.use(first)
    enroller.ground.delete_policy_binding()
    try:
        assert (enroller.run("-o", str(enroller.file)).returncode, len(enroller.secrets())) == (6, 1)
        assert first.send(WRITE).status == 200
    finally:
        enroller.ground.install()
        enroller.ground.wait_for_policy()


def test_an_error_is_one_line_and_an_exit_code(enroller: Enroller) -> None:
    file, admin, viewer = str(enroller.file), str(enroller.fleet.admin), str(enroller.fleet.viewer())
    foreign = enroller.folder / "foreign"
    foreign.write_text("apiVersion: v1\nusers: []\n")
    enroller.fleet.kubectl("create", "serviceaccount", "hotpool-agent-taken")
    cases: list[tuple[Result, int, str]] = [
        (enroller.run("-o", file, "-n", "no-such-namespace", "--kubeconfig", admin), 5, "no-such"),
        (enroller.run("-o", file, "--kubeconfig", viewer), 4, "hotpool-enroller"),
        (enroller.run("-o", file, "--kubeconfig", str(enroller.folder / "none")), 3, "kubeconfig"),
        (enroller.run("-o", file, node="taken"), 2, "hotpool-agent-taken"),
        (enroller.run("--revoke", node="taken"), 2, "hotpool-agent-taken"),
    ]
    for result, code, words in cases:
        assert (result.returncode, result.stderr.count("\n"), words in result.stderr) == (code, 1, True), result
    wrong: list[tuple[str, ...]] = [("-o", str(foreign)), ("--server", "http://plain"), ("--revoke", "--wait", "3")]
    for usage in wrong:
        assert enroller.run(*usage).returncode == 2
    assert enroller.run(node="No_Name").returncode == 2
    assert (enroller.enrolled(), enroller.file.exists()) == ([], False)
    assert "hotpool-agent-taken" in enroller.fleet.kubectl("get", "serviceaccounts", "-o", "name")


class Interrupted(BaseException):
    """End of the command in the middle."""


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, *, done: bool) -> None:
    """Interrupt the command at its request number `at`: before it is sent, or with `done` before its response."""
    real, count = rest.request, 0

    async def send(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == at and not done:
            raise Interrupted
        try:
            return await real(*args, **options)
        finally:
            if count == at:
                raise Interrupted

    monkeypatch.setattr(service_accounts, "request", send)


# Interruptions before a request and after the one before it differ only in local work between them: the file.
@pytest.mark.parametrize(
    ("phase", "done"),
    [*((phase, True) for phase in ("new", "in use", "rotating", "rotated", "revoking")), ("rotating", False)],
)
def test_the_next_run_completes_a_run_interrupted_at_any_request(
    enroller: Enroller, monkeypatch: pytest.MonkeyPatch, phase: str, *, done: bool
) -> None:
    task: Callable[..., Any] = rotation.revoke if phase == "revoking" else rotation.create_or_rotate
    fleet = FleetOptions(enroller.fleet.namespace, str(enroller.kubeconfig), None)
    options = enroll.EnrollOptions(NODE, fleet, str(enroller.file), None, None)

    async def run() -> None:
        async with connected(Target(fleet.kubeconfig)) as connection:
            await task(service_accounts.ServiceAccounts(connection, fleet.namespace), options)

    for at in range(1, 40):
        enroller.run("--revoke")
        working = prepare(enroller, phase)
        with monkeypatch.context() as patched:
            interrupt(patched, at, done=done)
            try:
                asyncio.run(run())
            except Interrupted:
                pass
            else:
                assert at > 6
                return
        if working and phase != "revoking":
            assert working.send(WRITE).status == 200
        if phase == "revoking":
            enroller.run("--revoke")
            assert enroller.enrolled() == []
            continue
        assert enroller.enroll().send(WRITE).status == 200
        assert len(enroller.secrets()) in {"new": {1}, "rotated": {1, 2}}.get(phase, {2})
    pytest.fail("the command never ended")


def prepare(enroller: Enroller, phase: str) -> Credential | None:
    """Bring the rotation to a phase; return the credential that the agent uses."""
    if phase == "new":
        return None
    first = enroller.enroll()
    enroller.use(first)
    if phase == "in use":
        return first
    second = enroller.enroll()
    if phase == "rotated":
        enroller.use(second)
        return second
    return first


def test_the_role_of_an_enroller_has_no_unneeded_verb(enroller: Enroller) -> None:
    """Without any one of its verbs some step is refused."""
    role = enroller.fleet.kubectl("get", "role", "hotpool-enroller", "-o", "json")
    for rule, verb in [(r, v) for r, item in enumerate(yaml.safe_load(role)["rules"]) for v in item["verbs"]]:
        reduced = yaml.safe_load(role)
        reduced["rules"][rule]["verbs"].remove(verb)
        rules = [item for item in reduced["rules"] if item["verbs"]]
        enroller.kubeconfig = enroller.ground.account_with(f"enroller-{rule}-{verb}", rules)
        codes = cycle(enroller)
        assert 4 in codes, (reduced["rules"][rule], verb)
        enroller.kubeconfig = enroller.ground.account("hotpool-enroller")
        enroller.run("--revoke")


def cycle(enroller: Enroller) -> list[int]:
    """Return the exit codes of a whole life of a credential: first run, rotation, its end, revocation."""
    codes = []
    for _ in range(3):
        codes.append(enroller.run("-o", str(enroller.file)).returncode)
        if codes[-1]:
            break
        enroller.use(enroller.credential())
    return [*codes, enroller.run("--revoke").returncode]
