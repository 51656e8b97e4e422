"""`hotpool enroll` as people run it, with the rights of the chart's Role hotpool-enroller only."""

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
from kubernetes import client
from pytest_kind.cluster import KindCluster
from tests.support.attacks import CAPABILITIES, LEASES, OTHER, OWN, Attempt
from tests.support.identities import NODE, Credential, Ground
from typer.testing import CliRunner

from hotpool.__main__ import app
from hotpool.cli import enroll
from hotpool.cli.enrollment.manifests import LAST_USED_LABEL, secrets_of
from hotpool.cli.options import FleetOptions
from hotpool.kube import service_accounts as door
from hotpool.kube.client import ClusterTarget
from localfleet.catalogue import translator
from localfleet.fleet import Fleet
from localfleet.process import wait_for

PROGRAM: Final = str(Path(sys.executable).with_name("hotpool"))
LABEL: Final = "hotpool.dev/enrolled"
READ: Final = Attempt("read", "GET", OWN)
WRITE: Final = Attempt("beat", "PATCH", f"{LEASES}/hotpool-node-{{node}}", {"spec": {"holderIdentity": "i/1"}})
DRAIN: Final = Attempt("drain", "PATCH", OWN, {"spec": {"drain": True}})
REST: Final = Attempt("other", "PATCH", OTHER, {"metadata": {"labels": {"agent.hotpool.dev/x": "y"}}})
FORGET_SECONDS: Final = 15.0
"""The API server remembers for 10 s that a token was good."""


class Done(NamedTuple):
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str


class Desk:
    """Where somebody enrolls machines: a namespace, a kubeconfig of Role hotpool-enroller, a folder."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground = ground
        self.fleet = ground.fleet
        self.folder = folder
        self.node = NODE
        self.kubeconfig = ground.account("hotpool-enroller")
        self.file = folder / "node.kubeconfig"
        self._core = client.CoreV1Api(self.fleet.objects.api_client)

    def run(self, *words: str, node: str | None = None) -> Done:
        """Run `hotpool enroll` to its end, in this process: a program of its own takes seconds to begin."""
        done = CliRunner().invoke(app, self.command(*words, node=node)[1:])
        return Done(done.exit_code, done.stdout, done.stderr)

    def command(self, *words: str, node: str | None = None) -> list[str]:
        """The words of it."""
        where = ["-n", self.fleet.namespace, "--kubeconfig", str(self.kubeconfig)]
        return [PROGRAM, "enroll", node or self.node, *where, *words]

    def enroll(self, *words: str) -> Credential:
        """Run it, and log in with the file that it writes."""
        done = self.run("-o", str(self.file), *words)
        assert done.returncode == 0, done
        return self.credential()

    def credential(self) -> Credential:
        """What the file holds now."""
        kept = self.folder / f"{uuid.uuid4().hex}.kubeconfig"
        shutil.copy(self.file, kept)
        return self.ground.of_file(kept)

    def secrets(self) -> dict[str, str | None]:
        """The node's credentials, by name: when each was used."""
        found = self._secrets()
        return {
            name: found[name].metadata.labels.get(LAST_USED_LABEL) for name in secrets_of(self.node) if name in found
        }

    def _secrets(self) -> dict[str, Any]:
        listed: Any = self._core.list_namespaced_secret(self.fleet.namespace, label_selector=LABEL).items
        return {item.metadata.name: item for item in listed}

    def left(self) -> list[str]:
        """Everything that enrolling has made."""
        kinds = "serviceaccounts,roles,rolebindings,secrets"
        return self.fleet.kubectl("get", kinds, "-l", LABEL, "-o", "name").split()

    def use(self, credential: Credential) -> None:
        """Log in, which the API server notes on the credential."""
        assert credential.ask(READ).status in {200, 404}

        def noted() -> bool:
            mine = [item for item in self._secrets().values() if item.data["token"] == credential.encoded_token]
            return any(LAST_USED_LABEL in item.metadata.labels for item in mine)

        wait_for("the use is noted", noted, 10)


@pytest.fixture(scope="module")
def ground(kind_cluster: KindCluster, redis_address: str) -> Iterator[Ground]:
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    fleet = Fleet(kubeconfig, kubectl, f"enroll-{uuid.uuid4().hex[:6]}", redis_address)
    fleet.install()
    made = Ground(fleet)
    made.wait_for_policy()
    yield made
    made.close()


@pytest.fixture
def desk(ground: Ground, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(ground, tmp_path)
    yield made
    made.run("--revoke")


def test_an_enrolled_agent_can_write_its_own_record_and_no_other(desk: Desk) -> None:
    done = desk.run("-o", str(desk.file))
    assert (done.returncode, stat.S_IMODE(desk.file.stat().st_mode)) == (0, 0o600)
    credential = desk.credential()
    assert credential.token not in done.stdout + done.stderr
    assert f"hotpool-agent run --node {NODE} --kubeconfig {desk.file} --catalogue node.yaml" in done.stdout
    assert "--server" in done.stderr  # the address of the test's cluster is of use on this machine only
    assert credential.ask(WRITE).status == 200
    assert (credential.ask(DRAIN).by, credential.ask(REST).by) == ("policy", "rbac")
    assert credential.ask(Attempt("list", "GET", CAPABILITIES)).by == "rbac"


def test_the_kubeconfig_alone_goes_to_standard_output(desk: Desk) -> None:
    done = desk.run("-o", "-", "--server", "https://api.example.com:6443")
    content = yaml.safe_load(done.stdout)
    assert content["clusters"][0]["cluster"]["server"] == "https://api.example.com:6443"
    assert content["clusters"][0]["cluster"]["certificate-authority-data"]
    assert content["contexts"][0]["context"]["namespace"] == desk.fleet.namespace
    assert "hotpool-agent run" in done.stderr
    assert content["users"][0]["user"]["token"] not in done.stderr


def test_what_was_never_used_is_handed_out_again(desk: Desk) -> None:
    first, second = desk.enroll(), desk.enroll()
    assert (first.token == second.token, len(desk.secrets())) == (True, 1)


def test_a_rotation_keeps_the_former_credential_until_the_new_one_has_worked(desk: Desk) -> None:
    first = desk.enroll()
    desk.use(first)
    second = desk.enroll()
    assert second.token != first.token
    assert (len(desk.secrets()), desk.enroll().token) == (2, second.token)
    assert first.ask(WRITE).status == 200
    desk.use(second)
    done = desk.run("-o", str(desk.file))
    assert "The former credential is gone" in done.stdout
    assert (len(desk.secrets()), desk.credential().token) == (1, second.token)
    wait_for("the former is refused", lambda: first.ask(WRITE).status == 401, FORGET_SECONDS)
    assert second.ask(WRITE).status == 200
    third = desk.enroll()
    assert (len(desk.secrets()), third.token in {first.token, second.token}) == (2, False)


def test_wait_ends_the_rotation_in_one_run(desk: Desk) -> None:
    first = desk.enroll()
    desk.use(first)
    late = desk.run("-o", str(desk.file), "--wait", "0")
    assert (late.returncode, len(desk.secrets())) == (1, 2)
    second = desk.credential()
    with subprocess.Popen(
        desk.command("-o", str(desk.file), "--wait", "60"), stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout
        assert "second credential" in waiting.stdout.readline()
        assert (waiting.poll(), len(desk.secrets())) == (None, 2)
        desk.use(second)
        assert "The former credential is gone" in waiting.communicate(timeout=30)[0]
    assert (waiting.returncode, len(desk.secrets())) == (0, 1)


def test_a_running_agent_takes_up_the_new_credential_by_itself(desk: Desk) -> None:
    """One command rotates: the file is the one that the agent runs with."""
    desk.file = desk.fleet.folder / f"hotpool-agent-{NODE}.kubeconfig"
    desk.enroll()
    desk.fleet.kubectl("delete", "ncap", NODE)
    desk.fleet.start_agent(NODE, translator(["zh", "en"]), interval=1)

    def report() -> dict[str, Any]:
        found = desk.fleet.get("nodecapabilities", NODE) or {}
        return dict((found.get("status") or {}).get("report") or {})

    wait_for("it reports, and its use of the credential is noted", lambda: report() and all(desk.secrets().values()))
    (before,), session = desk.secrets(), report()["session"]
    done = desk.run("-o", str(desk.file), "--wait", "60")
    assert (done.returncode, list(desk.secrets())) == (0, [name for name in secrets_of(NODE) if name != before])
    desk.fleet.agent(NODE, "stop", "piper")
    wait_for("the same process reports", lambda: report()["sequence"] > 1 and report()["session"] == session)
    desk.fleet.agents[NODE].stop()


def test_a_revoked_agent_is_refused_at_once_and_its_record_stays(desk: Desk) -> None:
    credential = desk.enroll()
    assert credential.ask(WRITE).status == 200
    done = desk.run("--revoke")
    assert credential.ask(WRITE).status in {401, 403}
    assert (done.returncode, desk.left()) == (0, [])
    wait_for("its token is unknown", lambda: credential.ask(READ).status == 401, FORGET_SECONDS)
    assert desk.fleet.get("nodecapabilities", NODE)
    again = desk.run("--revoke")
    assert (again.returncode, again.stderr.count("\n")) == (5, 1)
    # What it says to do removes what stays.
    words = next(line.split() for line in done.stdout.splitlines() if "kubectl" in line)
    assert words[:3] == ["kubectl", "-n", desk.fleet.namespace]
    desk.fleet.kubectl(*words[3:])
    assert desk.fleet.get("nodecapabilities", NODE) is None
    desk.ground.fill()


def test_an_account_enrolled_anew_is_not_opened_by_an_earlier_credential(desk: Desk) -> None:
    former = desk.enroll()
    desk.run("--revoke")
    desk.enroll()
    wait_for("the former is refused", lambda: former.ask(WRITE).status == 401, FORGET_SECONDS)


def test_a_node_with_the_longest_name_can_be_enrolled(desk: Desk) -> None:
    desk.node = "n" * 100 + "." + "m" * 99
    desk.ground.words["node"] = desk.node
    try:
        assert desk.enroll().ask(Attempt("read", "GET", OWN)).status == 404
        desk.run("--revoke")
        assert desk.left() == []
    finally:
        desk.ground.words["node"] = NODE


def test_without_the_policy_nothing_is_made(desk: Desk) -> None:
    desk.ground.unbind()
    try:
        done = desk.run("-o", str(desk.file))
        assert (done.returncode, desk.left(), desk.file.exists()) == (6, [], False)
        assert f"hotpool-{desk.fleet.namespace}-agent" in done.stderr
    finally:
        desk.ground.install()
        desk.ground.wait_for_policy()


def test_without_the_policy_an_enrolled_agent_gets_no_second_credential(desk: Desk) -> None:
    first = desk.enroll()
    desk.use(first)
    desk.ground.unbind()
    try:
        assert (desk.run("-o", str(desk.file)).returncode, len(desk.secrets())) == (6, 1)
        assert first.ask(WRITE).status == 200
    finally:
        desk.ground.install()
        desk.ground.wait_for_policy()


def test_what_cannot_be_done_is_one_line_and_an_exit_code(desk: Desk) -> None:
    viewer = desk.fleet.viewer()
    somebody = desk.folder / "somebody"
    somebody.write_text("apiVersion: v1\nusers: []\n")
    desk.fleet.kubectl("create", "serviceaccount", "hotpool-agent-taken")
    cases: list[tuple[Done, int, str]] = [
        (
            desk.run("-o", str(desk.file), "-n", "no-such-namespace", "--kubeconfig", str(desk.fleet.admin)),
            5,
            "no-such",
        ),
        (desk.run("-o", str(desk.file), "--kubeconfig", str(viewer)), 4, "hotpool-enroller"),
        (desk.run("-o", str(desk.file), "--kubeconfig", str(desk.folder / "none")), 3, "kubeconfig"),
        (desk.run("-o", str(desk.file), node="taken"), 2, "hotpool-agent-taken"),
        (desk.run("--revoke", node="taken"), 2, "hotpool-agent-taken"),
    ]
    for done, code, words in cases:
        assert (done.returncode, done.stderr.count("\n"), words in done.stderr) == (code, 1, True), done
    wrong: list[tuple[str, ...]] = [("-o", str(somebody)), ("--server", "http://plain"), ("--revoke", "--wait", "3")]
    for usage in wrong:
        assert desk.run(*usage).returncode == 2
    assert desk.run(node="No_Name").returncode == 2
    assert (desk.left(), desk.file.exists()) == ([], False)
    assert "hotpool-agent-taken" in desk.fleet.kubectl("get", "serviceaccounts", "-o", "name")


class Cut(BaseException):
    """The command dies here."""


def cutting(monkeypatch: pytest.MonkeyPatch, at: int, *, done: bool) -> None:
    """Let the command die at its request number `at`, before it is sent or (`done`) before its answer is heard."""
    real, count = door._send, 0  # noqa: SLF001 - the one door through which all requests go

    async def asked(verb: str, what: str, request: Any) -> Any:
        nonlocal count
        count += 1
        if count == at and not done:
            request.close()
            raise Cut
        try:
            return await real(verb, what, request)
        finally:
            if count == at:
                raise Cut

    monkeypatch.setattr(door, "_send", asked)


# Before a request differs from after the one before it only by what is done on this machine in between: the file.
@pytest.mark.parametrize(
    ("begun", "done"),
    [*((begun, True) for begun in ("new", "in use", "rotating", "rotated", "revoking")), ("rotating", False)],
)
def test_a_run_cut_off_at_any_request_is_put_right_by_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, begun: str, *, done: bool
) -> None:
    work: Callable[..., Any] = enroll._revoke if begun == "revoking" else enroll._enroll  # noqa: SLF001
    place = FleetOptions(desk.fleet.namespace, str(desk.kubeconfig), None)
    order = enroll.Enrollment(NODE, place, str(desk.file), None, None)

    async def run() -> None:
        async with door.service_accounts(ClusterTarget(place.namespace, place.kubeconfig)) as accounts:
            await work(accounts, order)

    for at in range(1, 40):
        desk.run("--revoke")
        working = prepare(desk, begun)
        with monkeypatch.context() as patched:
            cutting(patched, at, done=done)
            try:
                asyncio.run(run())
            except Cut:
                pass
            else:
                assert at > 6
                return
        if working and begun != "revoking":
            assert working.ask(WRITE).status == 200
        if begun == "revoking":
            desk.run("--revoke")
            assert desk.left() == []
            continue
        assert desk.enroll().ask(WRITE).status == 200
        assert len(desk.secrets()) in {"new": {1}, "rotated": {1, 2}}.get(begun, {2})
    pytest.fail("it never came to its end")


def prepare(desk: Desk, begun: str) -> Credential | None:
    """Bring the rotation to where the run begins; the credential that the agent uses."""
    if begun == "new":
        return None
    first = desk.enroll()
    desk.use(first)
    if begun == "in use":
        return first
    second = desk.enroll()
    if begun == "rotated":
        desk.use(second)
        return second
    return first


def test_the_role_of_an_enroller_has_no_verb_too_many(desk: Desk) -> None:
    """Without any one of them some step is refused."""
    role = desk.fleet.kubectl("get", "role", "hotpool-enroller", "-o", "json")
    for rule, verb in [(r, v) for r, item in enumerate(yaml.safe_load(role)["rules"]) for v in item["verbs"]]:
        less = yaml.safe_load(role)
        less["rules"][rule]["verbs"].remove(verb)
        rules = [item for item in less["rules"] if item["verbs"]]
        desk.kubeconfig = desk.ground.account_with(f"enroller-{rule}-{verb}", rules)
        codes = cycle(desk)
        assert 4 in codes, (less["rules"][rule], verb)
        desk.kubeconfig = desk.ground.account("hotpool-enroller")
        desk.run("--revoke")


def cycle(desk: Desk) -> list[int]:
    """Exit codes of everything that enrolling is: first, rotation, its end, revoking."""
    codes = []
    for _ in range(3):
        codes.append(desk.run("-o", str(desk.file)).returncode)
        if codes[-1]:
            break
        desk.use(desk.credential())
    return [*codes, desk.run("--revoke").returncode]
